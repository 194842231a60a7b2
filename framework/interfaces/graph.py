"""The graph strategy: which batch shapes are captured as CUDA graphs, and which one replays a given batch."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from framework.interfaces.step_runner import StepRunner


class GraphScope(enum.Enum):
    """How much of a step one replay covers."""

    FORWARD = "forward"
    """Input gather and model. The kernels of head and sampling are launched one by one."""
    STEP = "step"
    """Input gather, model, head, sampling and feeding the token back."""
    PIECES = "pieces"
    """Everything between two attention calls, for any batch. Keys have tokens and no rows (`num_rows=0`)."""


@dataclass(slots=True, frozen=True, kw_only=True)
class GraphLimits:
    """The limits of what a strategy may ask for."""

    max_num_seqs: int
    max_num_batched_tokens: int
    mixed_supported: bool
    """Whether the attention backend can be captured with prefill chunks in the batch."""


@dataclass(slots=True, frozen=True, kw_only=True)
class BatchShape:
    """The shape of one step's batch, before padding."""

    num_rows: int
    num_tokens: int

    @property
    def decode_only(self) -> bool:
        return self.num_rows == self.num_tokens


@dataclass(slots=True, frozen=True, order=True)
class GraphKey:
    """The padded shape of a captured graph. A graph with as many tokens as rows holds decode rows only.

    A graph with more tokens than rows holds any batch that fits into it, including prompt chunks (`mixed`).
    """

    num_tokens: int
    num_rows: int

    @property
    def mixed(self) -> bool:
        return self.num_tokens > self.num_rows > 0


class GraphStrategy(ABC):
    """Chooses graph shapes. The framework takes care of capturing, memory pools and padding, unless the strategy
    brings a `step_runner` of its own."""

    scope: GraphScope = GraphScope.FORWARD
    needs_mixed: bool = False
    """Whether to refuse an attention backend that cannot be captured with prefill chunks (`limits.mixed_supported`)."""
    max_graphs: int | None = None
    """How many graphs are kept at once. The one that was not replayed for the longest time makes room for a new one.
    None keeps all of them."""

    @abstractmethod
    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        """The shapes to capture at start, largest first, so that all of them share one memory pool."""

    @abstractmethod
    def select(self, shape: BatchShape) -> GraphKey | None:
        """The captured shape in which `shape` is replayed, at least as large in every dimension. None runs it eagerly.

        A shape that `keys` did not list is captured when it is first selected.
        """

    def step_runner(self, eager: StepRunner) -> StepRunner | None:
        """What runs the steps for which `select` returns a key. None lets the framework capture what `scope` says.

        A strategy that returns its own runner runs on every device, a CPU included, and the framework does not check
        whether attention backend and sampler can be captured. If it returns None, they are checked as they are for any
        other strategy. A step that owes log-probabilities of its prompt runs eagerly in any case.

        Each rank calls this once, before it captures `keys`.

        Args:
            eager: runs any batch without a graph (`framework.execution.step.eager_steps.EagerSteps`, which holds the
                network, the attention backend, the batch state and the sampling).

        Raises:
            IncompatibleError: the strategy cannot run here.
        """
        return None

    @property
    def captures_itself(self) -> bool:
        """Whether the strategy brings its own `step_runner`."""
        return type(self).step_runner is not GraphStrategy.step_runner
