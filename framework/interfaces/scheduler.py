"""The scheduler: which requests run in the next step, and how many of their pending tokens."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from framework.interfaces.sampling_params import SamplingParams


class Verdict(enum.Enum):
    """The answer of `StepPlan.add`: OK, or why the plan was left as it was."""

    OK = "ok"
    NO_TOKENS = "no_tokens"
    """The step's token budget is spent."""
    NO_SLOTS = "no_slots"
    """`max_num_seqs` requests run already."""
    NO_BLOCKS = "no_blocks"
    """Free and evictable KV blocks do not suffice; preempting somebody may help."""
    NOT_READY = "not_ready"
    """Nothing to compute for it now: preempted in this plan, or its last step has not returned."""


@runtime_checkable
class RequestView(Protocol):
    """What a scheduler may read of a request. It may write nothing."""

    @property
    def id(self) -> int: ...
    @property
    def arrival_s(self) -> float: ...
    @property
    def num_prompt(self) -> int: ...
    @property
    def num_tokens(self) -> int:
        """Prompt and output tokens so far, those still in flight included."""

    @property
    def num_computed(self) -> int:
        """Tokens whose KV is in the cache, or will be by a step already submitted."""

    @property
    def num_pending(self) -> int:
        """Tokens that the next step could compute; 1 for a decode row, 0 when all it may produce is in flight."""

    @property
    def num_output(self) -> int: ...
    @property
    def num_preemptions(self) -> int: ...
    @property
    def running(self) -> bool:
        """Whether it holds a slot and blocks; a preemption takes both away."""

    @property
    def max_total_tokens(self) -> int:
        """Prompt and output tokens that it may come to: the prompt with `params.max_tokens`, or the model's limit. How
        many it will produce is not to be had before its last token is in flight; this is lowered to it then."""

    @property
    def params(self) -> SamplingParams:
        """What its sender stated; `max_tokens` is a cap, not the length of the answer."""

    @property
    def priority(self) -> int:
        """Lower runs earlier, as in vLLM."""

    @property
    def client(self) -> str:
        """Whom to account the service to; empty when the workload names nobody."""

    @property
    def category(self) -> str:
        """What kind of request it is, such as "chat" or "api"; empty when the workload has no kinds."""

    @property
    def deadline_s(self) -> float | None:
        """When its first token is due (seconds since start), if it carries such an objective."""


class Queue(Protocol):
    """Every live request, in order. The framework owns both sequences; iterate over a copy while preempting."""

    @property
    def waiting(self) -> Sequence[RequestView]:
        """Arrival order; preempted requests in front."""

    @property
    def running(self) -> Sequence[RequestView]:
        """Admission order."""

    @property
    def now_s(self) -> float:
        """Seconds since start on the engine's clock, real or virtual."""


class StepPlan(Protocol):
    """The transaction for one step: all that a scheduler may change."""

    @property
    def tokens_left(self) -> int: ...
    @property
    def slots_left(self) -> int: ...
    @property
    def blocks_left(self) -> int:
        """Free plus evictable blocks."""

    def add(self, request: RequestView, max_tokens: int | None = None) -> Verdict:
        """Run up to `max_tokens` pending tokens of `request` (None: all that the budget allows) in this step.

        A waiting request is first matched against the prefix cache and given a slot. Either everything is allocated, or
        nothing changes and the verdict says why.

        Raises:
            PluginError: for a `max_tokens` below 1, or for a request that has ended or is in this plan already: its row
                cannot grow, so a second call can only be a mistake.
        """

    def preempt(self, request: RequestView) -> None:
        """Take `request` off its slot and blocks and re-queue it at the front of waiting; it recomputes later."""

    def cached_tokens(self, request: RequestView) -> int:
        """Tokens of a waiting request that the prefix cache holds now. Changes nothing."""

    def cached_path(self, request: RequestView) -> Sequence[int]:
        """Hashes of the cached blocks that a waiting request would find, from the first token on. Two requests whose
        paths begin alike share these blocks. Changes nothing."""

    def blocks_needed(self, request: RequestView, num_tokens: int) -> int:
        """Further blocks that `request` needs to hold its first `num_tokens` tokens. Changes nothing."""


class Scheduler(ABC):
    """Fills the plan of one step. Holds private policy state only: queues, blocks and budgets are the framework's.

    Plugins register with `@SCHEDULERS.register("name")` and take keyword-only, annotated parameters.
    """

    oracle: bool = False
    """Whether it asks for true output lengths, which no engine in service knows. The record says so
    (`effective.oracle`)."""

    @abstractmethod
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        """Call `plan.add` and `plan.preempt` until the plan is as wanted. Leaving it empty is fine while steps are in
        flight; with nothing in flight and work waiting it is an error, since nothing would ever change."""

    def on_true_length(self, request: RequestView, num_output: int) -> None:
        """For an `oracle` only, before `on_arrival`: `request` will produce `num_output` tokens. Where no workload
        states a length, this is the most that it may produce."""

    def on_arrival(self, request: RequestView) -> None:
        """`request` entered the waiting queue for the first time."""

    def on_tokens(self, request: RequestView, num_new: int) -> None:
        """`num_new` tokens of `request` came back from the executor."""

    def on_finish(self, request: RequestView) -> None:
        """`request` ended, for whatever reason."""
