"""Steps without graphs: the inputs are sent, and every kernel is launched by itself.

Shape letters: T tokens of the step, P sampled rows, D model size, S slots, L positions.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from framework.execution.step.device_state import DeviceState
from framework.execution.step.network import Attend, Network
from framework.execution.step.prompt_logprobs import PromptLogprobs
from framework.execution.step.sampling import Sampling
from framework.execution.step.step_inputs import StepInputs
from framework.interfaces.attention import AttentionBackend
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import GraphKey
from framework.interfaces.step_runner import StepTokens

Forward = Callable[[StepInputs, Attend], Tensor]
"""Hidden states [T, D] of a step's tokens."""


class EagerSteps:
    """The `StepRunner` of steps that no graph replays."""

    def __init__(self, network: Network, attention: AttentionBackend, state: DeviceState, sampling: Sampling) -> None:
        self.network, self.attention, self.state, self.sampling = network, attention, state, sampling

    def capture(self, key: GraphKey) -> None:
        pass

    def run(self, batch: StepBatch, key: GraphKey | None) -> StepTokens:
        return self.run_with(batch, self._forward)

    def run_with(self, batch: StepBatch, forward: Forward) -> StepTokens:
        """Run `batch` with another forward pass than the network's own."""
        inputs = StepInputs.of(batch, self.state)
        hidden_TD = forward(inputs, self.network.attend(self.attention, self.attention.plan(inputs.layout)))
        parts = self.sampling.prompt_parts(batch)
        whole_logits = self.sampling.whole_logits
        prompt_logprobs = PromptLogprobs.of(parts, hidden_TD, self.state, whole_logits) if parts else None
        if not inputs.sampled_slots:
            return StepTokens(prompt_logprobs=prompt_logprobs)
        hidden_PD = hidden_TD if len(inputs.sampled_slots) == batch.num_tokens else hidden_TD[inputs.last_P]
        slot_P, position_P = inputs.slot_P, inputs.position_P
        tokens_P, logprobs = self.sampling.sample(
            hidden_PD, inputs.sampled_slots, slot_P, position_P, max_position=inputs.max_position
        )
        self.state.token_ids_SL[slot_P, position_P] = tokens_P.clamp(min=0).int()  # NOT_FINITE is below 0
        return StepTokens(tokens_P, logprobs, prompt_logprobs)

    def slots_changed(self) -> None:
        pass

    def release(self) -> None:
        pass

    def effective(self) -> dict[str, object]:
        return {}

    def _forward(self, inputs: StepInputs, attend: Attend) -> Tensor:
        layout = inputs.layout
        return self.network.forward(inputs.token_ids_T, layout.positions_T, layout.slot_mapping_T, attend)
