"""What one step is made of on a device: state that stays there, inputs, the network, the tokens that come back."""
