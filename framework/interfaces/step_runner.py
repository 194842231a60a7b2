"""A way to run steps on a device: without graphs, in captured steps, in captured pieces, or in a strategy's own way.

Shape letters: P sampled rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from framework.interfaces.executor import StepBatch, TokenLogprobs
from framework.interfaces.graph import GraphKey

if TYPE_CHECKING:
    from torch import Tensor


class StepLogprobs(Protocol):
    """Log-probabilities of a step, on their way to the host."""

    def to_host(self) -> list[TokenLogprobs | None]:
        """One entry per sampled row, None for rows that do not ask. Call it after the end of the step."""


class StepPromptLogprobs(Protocol):
    """Log-probabilities of a step's prompt tokens, on their way to the host."""

    def to_host(self) -> dict[int, tuple[int, list[TokenLogprobs]]]:
        """As in `StepResult.prompt_logprobs`. Call it after the end of the step."""


@dataclass(slots=True)
class StepTokens:
    """What a step brings for its sampled rows, on the device or on its way to the host."""

    tokens_P: Tensor | None = None
    """[P] int64 token ids, `NOT_FINITE` where a row has no token. None if no row is sampled."""
    logprobs: StepLogprobs | None = None
    """None if no row asks for log-probabilities."""
    prompt_logprobs: StepPromptLogprobs | None = None
    """None if no row asks for those of its prompt and computes a part of it."""


class StepRunner(Protocol):
    """Runs the steps of one rank. The batch state on the device has applied the step's admissions and blocks before."""

    def capture(self, key: GraphKey) -> None:
        """Capture `key` ahead of its first use.

        Raises:
            ValueError: out of memory while capturing.
        """

    def run(self, batch: StepBatch, key: GraphKey | None) -> StepTokens:
        """Enqueue `batch` and feed its tokens back into the batch state, without waiting for the device.

        Args:
            key: what the strategy selected for `batch`. None comes to the runner of eager steps only.
        """

    def slots_changed(self) -> None:
        """From the next step on, any slot may belong to another request than before."""

    def release(self) -> None:
        """Destroy what was captured. No step follows. Calling it again does nothing."""

    def effective(self) -> dict[str, object]:
        """What the record says of the runner, such as the number of graphs."""
