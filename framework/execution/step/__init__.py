"""The parts of a step on a device: state that stays there, inputs, the network, the tokens that come back."""
