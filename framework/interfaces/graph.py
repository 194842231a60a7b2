"""The graph strategy: which batch shapes are captured as CUDA graphs, and which one replays a given batch."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass


class GraphScope(enum.Enum):
    """How much of a step one replay covers."""

    FORWARD = "forward"
    """Input gather and model; head and sampling are launched one by one."""
    STEP = "step"
    """Input gather, model, head, sampling and feeding the token back."""
    PIECES = "pieces"
    """Everything between two attention calls, of any batch: keys have tokens and no rows (`num_rows=0`)."""


@dataclass(slots=True, frozen=True, kw_only=True)
class GraphLimits:
    """What a strategy may ask for."""

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
    """The padded shape of a captured graph; a key with as many tokens as rows holds decode rows only.

    One with more tokens than rows holds any batch that fits it, prompt chunks included (`mixed`).
    """

    num_tokens: int
    num_rows: int

    @property
    def mixed(self) -> bool:
        return self.num_tokens > self.num_rows > 0


class GraphStrategy(ABC):
    """Chooses graph shapes. Capturing, memory pools and padding are the framework's."""

    scope: GraphScope = GraphScope.FORWARD
    needs_mixed: bool = False
    """Whether to refuse an attention backend that cannot be captured with prefill chunks (`limits.mixed_supported`)."""
    max_graphs: int | None = None
    """Graphs kept at once; the one not replayed for longest makes room. None keeps all."""

    @abstractmethod
    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        """The shapes to capture at start, largest first so that all of them share one memory pool."""

    @abstractmethod
    def select(self, shape: BatchShape) -> GraphKey | None:
        """The shape to replay `shape` in, every dimension at least as large; None runs it eagerly.

        A shape that `keys` did not list is captured when it is first selected.
        """
