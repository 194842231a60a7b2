"""The seam between planning and running: sealed steps go in as deltas, sampled tokens come out in the same order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from dataclasses import dataclass, field

from framework.interfaces.clock import Clock
from framework.interfaces.prompt_keys import PromptKeys
from framework.interfaces.sampling_params import SamplingParams


@dataclass(slots=True)
class Admission:
    """A request that got a slot in this step. Whatever the executor knew of that slot is void."""

    slot: int
    request_id: int
    token_ids: array[int]
    """Every token known so far: the prompt, and after a preemption the outputs too."""
    num_prompt: int
    params: SamplingParams
    seed: int
    keys: PromptKeys | None = None
    """What stands for the prompt in a simulated run; `token_ids` are the outputs alone then."""


@dataclass(slots=True)
class StepBatch:
    """A sealed plan as parallel lists, one entry a row; decode rows (one token) come first.

    Row r computes positions `starts[r]` to `starts[r] + row_tokens[r]` of the request in `slots[r]`. The executor
    owns the batch from `submit` on.
    """

    step: int
    num_tokens: int
    num_decode_rows: int
    row_tokens: list[int]
    slots: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    samples: list[bool] = field(default_factory=list)
    """Whether the row reaches its request's last token, so that a new one is sampled."""
    admissions: list[Admission] = field(default_factory=list)
    """Requests that take a slot with this step; applied before `new_blocks`."""
    new_blocks: list[tuple[int, int, list[int]]] = field(default_factory=list)
    """(slot, index of the first, block ids): what a block table holds from there on, written before the step runs."""
    eager: bool = False
    """Run it outside graphs whatever the strategy says; for calibration."""


@dataclass(slots=True)
class TokenLogprobs:
    """Natural-log probabilities under the raw logits (before temperature, filters and penalties)."""

    token_id: int
    logprob: float
    top: list[tuple[int, float]]
    """The n most likely (token id, log-probability) pairs, most likely first."""


@dataclass(slots=True)
class StepResult:
    """What came back of a step."""

    step: int
    token_ids: list[int]
    """One for each sampled row, in row order."""
    logprobs: list[TokenLogprobs | None] | None = None
    """As `token_ids`; None when no row asked."""
    graph_key: str = "eager"
    num_padding_tokens: int = 0
    run_s: float = 0.0
    """Time the device spent on this step."""
    failed: dict[int, Exception] | None = None
    """Sampled rows that have no token, by their index in `token_ids`, and why: their requests end, the others go on."""


class Executor(ABC):
    """Runs steps in submission order. It knows slots, blocks and tokens, never queues or policies."""

    num_blocks: int
    """KV blocks that it has room for."""
    clock: Clock

    @abstractmethod
    def submit(self, batch: StepBatch) -> None:
        """Start a step after all earlier ones; never waits for it."""

    @abstractmethod
    def collect(self) -> StepResult:
        """The oldest step submitted and not collected, waiting for it to end.

        Raises:
            Exception: whatever the step raised.
        """

    def discard(self) -> None:
        """Drop the steps that were submitted and not collected, after one of them or the engine failed, and return
        when they write no more. Every request of the steps to come is admitted anew.

        Raises:
            Exception: no further step can run; the engine ends.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot go on after a step that failed")

    def fill_cache(self) -> None:
        """Fill the KV cache with random numbers: calibration reads positions that nobody wrote. Needs a device."""
        raise NotImplementedError(f"{type(self).__name__} has no KV cache to calibrate with")

    @abstractmethod
    def close(self) -> None:
        """Give back threads, processes and memory. Idempotent."""

    def effective(self) -> dict[str, object]:
        """Choices that were made here (`auto` resolved, compile time, graph memory, ...), for the record."""
        return {}
