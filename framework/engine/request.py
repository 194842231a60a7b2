"""One request: its tokens, its blocks and the counters of its progress."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from framework.engine.block_table import EVERYTHING, BlockTable
from framework.engine.output import TextTracker
from framework.engine.prediction import Prediction
from framework.interfaces.executor import TokenLogprobs
from framework.interfaces.predictor import LengthDistribution
from framework.interfaces.prompt_keys import PromptKeys
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """A live request. Only the engine, the plan and the KV cache write to it; plugins see it as a `RequestView`."""

    id: int
    token_ids: array[int]
    """The ids known on the host: prompt and delivered outputs (C int, so that a block's ids are one slice of bytes). A
    prompt by key has no ids, so these are then the outputs only."""
    num_prompt: int
    max_total_tokens: int
    """It ends when it has this many at the latest: prompt + max_tokens, or the model's length limit. Lowered to its
    true length, if it has one, when its last token is in flight."""
    spec: RequestSpec
    """What its sender asked for; never its true length."""
    arrival_s: float
    seed: int
    stop_ids: frozenset[int]
    min_total_tokens: int = 0
    """No token ends it before it has this many: prompt + min_tokens."""

    keys: PromptKeys | None = None
    """The keys that stand for the prompt in a simulated run without token ids."""
    num_known: int = 0
    """The number of prompt tokens and delivered output tokens."""
    num_tokens: int = 0
    """The number of known tokens plus the sampled ones in flight."""
    num_computed: int = 0
    num_inflight: int = 0
    """The number of submitted and not yet collected steps that hold a row of this request."""
    running: bool = False
    slot: int = -1
    """The row of the request in the batch state on the device, while it runs."""
    planned_in: int = -1
    """The serial of the last plan that admitted or preempted the request."""
    finish_reason: str | None = None

    memory: BlockTable = field(default_factory=BlockTable)
    """The KV blocks of the request, and what the cache knows of its prefix."""

    num_preemptions: int = 0
    furthest_tokens: int = 0
    """The most tokens that were ever computed. A preemption takes the tokens away and leaves this number."""
    num_cached_tokens: int = 0
    scheduled_s: float | None = None
    token_times_s: array[float] = field(default_factory=lambda: array("d"))
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    """Those of the prompt's tokens from the second on, as far as they have been computed, if they are wanted."""
    text: TextTracker | None = None
    prediction: Prediction | None = None

    def __post_init__(self) -> None:
        self.num_known = self.num_tokens = self.num_prompt
        if self.keys is not None:
            self.memory.shareable_tokens = self.keys.num_tokens
        if self.params.prompt_logprobs is not None:
            self.take_prompt_logprobs(1, [])

    def restart(self) -> None:
        """Forget what caches, plans, the device and steps in flight held of the request. Its known tokens stay."""
        self.num_tokens = self.num_known
        self.num_computed = self.num_inflight = 0
        self.running, self.slot, self.planned_in = False, -1, -1
        old = self.memory
        self.memory = BlockTable(
            hashes=old.hashes,
            contents=old.contents,
            shareable_tokens=old.shareable_tokens,
            readable_tokens=old.readable_tokens,
        )

    def take_prompt_logprobs(self, first: int, entries: list[TokenLogprobs]) -> None:
        """Those of the prompt's tokens from position `first` on. What is known already is computed again after a
        preemption."""
        known = self.prompt_logprobs
        assert first <= len(known) + 1
        known.extend(entries[len(known) + 1 - first :])
        self.memory.readable_tokens = EVERYTHING if len(known) >= self.num_prompt - 1 else len(known)

    @property
    def params(self) -> SamplingParams:
        return self.spec.params

    @property
    def priority(self) -> int:
        return self.spec.priority

    @property
    def client(self) -> str:
        return self.spec.client

    @property
    def category(self) -> str:
        return self.spec.category

    @property
    def deadline_s(self) -> float | None:
        return self.spec.deadline_s

    @property
    def prompt_token_ids(self) -> Sequence[int]:
        return self.token_ids[: self.num_prompt] if self.keys is None else ()

    @property
    def prompt_keys(self) -> PromptKeys | None:
        return self.keys

    @property
    def predicted(self) -> LengthDistribution | None:
        return None if self.prediction is None else self.prediction.now(self)

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def num_pending(self) -> int:
        if self.num_tokens >= self.max_total_tokens:
            return 0
        return self.num_tokens - self.num_computed

    @property
    def num_output(self) -> int:
        return self.num_known - self.num_prompt

    @property
    def output_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt if self.keys is None else 0 :].tolist()
