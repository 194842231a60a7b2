"""The seam between planning and running: sealed steps go in as deltas, sampled tokens come out in the same order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from framework.interfaces.clock import Clock
from framework.interfaces.cost_model import StepShape
from framework.interfaces.prompt_keys import PromptKeys
from framework.interfaces.sampling_params import SamplingParams


@dataclass(slots=True)
class Admission:
    """A request that got a slot in this step. Whatever the executor knew of that slot is no longer valid."""

    slot: int
    request_id: int
    token_ids: array[int]
    """Every token known so far: the prompt and, after a preemption, the output tokens."""
    num_prompt: int
    params: SamplingParams
    seed: int
    keys: PromptKeys | None = None
    """The keys that stand for the prompt in a simulated run. `token_ids` then holds the output tokens only."""


@dataclass(slots=True)
class StepBatch:
    """A sealed plan as parallel lists with one entry per row. Decode rows (one token) come first.

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
    """Whether the row reaches the last token of its request, so that a new one is sampled."""
    admissions: list[Admission] = field(default_factory=list)
    """Requests that take a slot in this step. They are applied before `new_blocks`."""
    new_blocks: list[tuple[int, int, list[int]]] = field(default_factory=list)
    """(slot, index, block ids): the block table of `slot` holds these blocks from `index` on. The tables are written
    before the step runs."""
    eager: bool = False
    """Whether to run the step outside graphs, whatever the strategy says. Calibration uses it."""


@dataclass(slots=True)
class TokenLogprobs:
    """Natural-log probabilities under the raw logits (before temperature, filters and penalties)."""

    token_id: int
    logprob: float
    top: list[tuple[int, float]]
    """The n most likely (token id, log-probability) pairs, most likely first."""
    rank: int | None = None
    """1 for the most likely token of all. Only tokens of prompts have it."""


@dataclass(slots=True)
class StepResult:
    """The result of a step."""

    step: int
    token_ids: list[int]
    """One token id per sampled row, in row order."""
    logprobs: list[TokenLogprobs | None] | None = None
    """The log-probabilities of the rows that asked for them, in the order of `token_ids`. None if no row asked."""
    graph_key: str = "eager"
    num_padding_tokens: int = 0
    run_s: float = 0.0
    """Time the device spent on this step."""
    failed: dict[int, Exception] | None = None
    """Maps the index (in `token_ids`) of each sampled row that has no token to the reason. Its request ends as failed;
    the others go on."""
    prompt_logprobs: dict[int, tuple[int, list[TokenLogprobs]]] | None = None
    """Maps the index of each row that computed positions of a prompt whose log-probabilities are wanted to the position
    of the first token that these belong to, and one entry per token from there on. None if no row asked."""


class Executor(ABC):
    """Runs steps in submission order. It knows slots, blocks and tokens, never queues or policies."""

    num_blocks: int
    """The number of KV blocks that the executor has room for."""
    clock: Clock

    @abstractmethod
    def submit(self, batch: StepBatch) -> None:
        """Start a step after all earlier ones, without waiting for it."""

    @abstractmethod
    def collect(self) -> StepResult:
        """Wait for the end of the oldest step that was submitted and not collected, and return its result.

        Raises:
            Exception: whatever the step raised.
        """

    def forecaster(self, overlap: int) -> Callable[[StepShape], float] | None:
        """What says how long a step would take (`Queue.forecast`), where that is known beforehand. With None the engine
        learns it from the steps that run. `overlap` is that of the engine."""
        return None

    def discard(self) -> None:
        """Drop the steps that were submitted and not collected, after one of them or the engine failed. Return when
        they no longer write. Every request of later steps is admitted anew.

        Raises:
            Exception: no further step can run, so the engine ends.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot go on after a step that failed")

    def fill_cache(self) -> None:
        """Fill the KV cache with random numbers, because calibration reads positions that no request wrote. Only a
        real device can do this."""
        raise NotImplementedError(f"{type(self).__name__} has no KV cache to calibrate with")

    @abstractmethod
    def close(self) -> None:
        """Give back threads, processes and memory. Calling it again does nothing."""

    def effective(self) -> dict[str, object]:
        """What the record should say about the choices made here: what `auto` became, compile time, graph memory."""
        return {}
