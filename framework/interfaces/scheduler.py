"""The scheduler: which requests run in the next step, and how many of their pending tokens."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from framework.interfaces.predictor import LengthDistribution
from framework.interfaces.prompt_keys import PromptKeys
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams

if TYPE_CHECKING:
    from framework.interfaces.cost_model import StepShape
    from framework.interfaces.records import StepRecord


class Verdict(enum.Enum):
    """The answer of `StepPlan.add`: OK, or the reason why the plan is unchanged."""

    OK = "ok"
    NO_TOKENS = "no_tokens"
    """The step's token budget is spent."""
    NO_SLOTS = "no_slots"
    """`max_num_seqs` requests run already."""
    NO_BLOCKS = "no_blocks"
    """The free and evictable KV blocks do not suffice. Preempting a request may help."""
    NOT_READY = "not_ready"
    """The request cannot run in this step: it was preempted in this plan, or its last step has not returned."""


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
        """Prompt and output tokens so far, including those in flight."""

    @property
    def num_computed(self) -> int:
        """Tokens whose KV is in the cache, or will be once the submitted steps have run."""

    @property
    def num_pending(self) -> int:
        """Tokens that the next step could compute: 1 for a decode row, 0 if all that it may produce is in flight."""

    @property
    def num_output(self) -> int: ...
    @property
    def num_preemptions(self) -> int: ...
    @property
    def running(self) -> bool:
        """Whether the request holds a slot and blocks. A preemption takes both away."""

    @property
    def max_total_tokens(self) -> int:
        """Prompt and output tokens that it may come to: the prompt with `params.max_tokens`, or the model's limit. How
        many it will produce is not to be had before its last token is in flight; this is lowered to it then."""

    @property
    def params(self) -> SamplingParams:
        """What its sender stated; `max_tokens` is a cap, not the length of the answer."""

    @property
    def priority(self) -> int:
        """The priority of the request. Lower runs earlier, as in vLLM."""

    @property
    def client(self) -> str:
        """The client that the service is charged to; empty if the workload names no client."""

    @property
    def category(self) -> str:
        """The kind of request, such as "chat" or "api"; empty if the workload has no kinds."""

    @property
    def deadline_s(self) -> float | None:
        """When the first token is due (seconds since start), if the request has such an objective."""

    @property
    def spec(self) -> RequestSpec:
        """All that its sender stated, such as its session. It never holds the true length."""

    @property
    def prompt_token_ids(self) -> Sequence[int]:
        """The prompt, copied; empty where only `prompt_keys` stand for it."""

    @property
    def prompt_keys(self) -> PromptKeys | None:
        """What stands for the prompt in the simulation of a trace; None where its token ids are known."""

    @property
    def predicted(self) -> LengthDistribution | None:
        """What `predictor=...` expects of its number of output tokens, given those that have come. None with
        `predictor=none`."""


class Queue(Protocol):
    """Every live request, in order. The framework owns both sequences, so iterate over a copy while preempting."""

    @property
    def waiting(self) -> Sequence[RequestView]:
        """The waiting requests in order of arrival, with preempted ones in front."""

    @property
    def running(self) -> Sequence[RequestView]:
        """The running requests in order of admission."""

    @property
    def now_s(self) -> float:
        """Seconds since start on the engine's clock, which is real or virtual."""

    def forecast(self, step: StepShape) -> float | None:
        """How many seconds `step` would take, from the end of the step before it to its own end. A simulation asks its
        cost model. On a device it is fitted to the steps that have run, and None before there are enough.
        `framework.toolkit.step_shape.shape_of` makes the shape of requests and their tokens. It leaves the graph open,
        which the forecast chooses as the run would.

        Raises:
            PluginError: the scheduler does not set `asks_forecast`.
        """


class StepPlan(Protocol):
    """The transaction for one step. It is all that a scheduler may change."""

    @property
    def tokens_left(self) -> int: ...
    @property
    def slots_left(self) -> int: ...
    @property
    def blocks_left(self) -> int:
        """The number of free and evictable blocks."""

    @property
    def num_blocks(self) -> int:
        """The size of the KV cache."""

    @property
    def block_size(self) -> int:
        """Tokens per block."""

    def add(self, request: RequestView, max_tokens: int | None = None) -> Verdict:
        """Run up to `max_tokens` pending tokens of `request` (None: all that the budget allows) in this step.

        A waiting request is first matched against the prefix cache and given a slot. Either everything is allocated, or
        nothing changes and the verdict says why.

        Raises:
            PluginError: `max_tokens` is below 1, or the request has ended or is in this plan already. A row cannot
                grow, so a second call can only be a mistake.
        """

    def preempt(self, request: RequestView) -> None:
        """Take the slot and the blocks of `request` away and put it at the front of `waiting`. It recomputes later."""

    def cached_tokens(self, request: RequestView) -> int:
        """How many tokens of a waiting request the prefix cache holds now. The call changes nothing."""

    def cached_path(self, request: RequestView) -> Sequence[int]:
        """The hashes of the cached blocks that a waiting request would find, from the first token on. Two requests
        whose paths begin alike share these blocks. The call changes nothing."""

    def blocks_needed(self, request: RequestView, num_tokens: int) -> int:
        """How many further blocks `request` needs to hold its first `num_tokens` tokens. The call changes nothing."""


class Scheduler(ABC):
    """Fills the plan of one step. It holds the private state of its policy only. The framework owns queues, blocks and
    budgets.

    Plugins register with `@SCHEDULERS.register("name")` and take keyword-only, annotated parameters.
    """

    asks_forecast: ClassVar[bool] = False
    """Whether it calls `Queue.forecast`, which takes some microseconds per step on a device."""
    needs_prediction: ClassVar[bool] = False
    """Whether it cannot do without `RequestView.predicted`. A run with `predictor=none` is then refused."""

    @abstractmethod
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        """Call `plan.add` and `plan.preempt` until the plan is as wanted. The plan may stay empty while steps are in
        flight. If nothing is in flight and requests wait, an empty plan is an error, since nothing would ever change.
        """

    def on_arrival(self, request: RequestView) -> None:
        """`request` entered the waiting queue for the first time."""

    def on_tokens(self, request: RequestView, num_new: int) -> None:
        """`num_new` tokens of `request` came back from the executor."""

    def on_finish(self, request: RequestView) -> None:
        """`request` ended, for whatever reason."""

    def on_step(self, record: StepRecord) -> None:
        """A step has been collected, after the calls of `on_tokens` and `on_finish` for it. `record` is that of
        `steps.parquet`: its times, tokens and requests, and the KV blocks as it was planned."""
