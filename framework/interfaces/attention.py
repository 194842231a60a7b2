"""The attention backend: causal attention of a mixed batch over the paged KV cache.

Shape letters: T tokens of the step, R rows (requests) of the step, N query heads, M KV heads, H head size, B blocks in
the longest block table, S slots (token positions) of the whole cache.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # composing a configuration imports every plugin, and must not wait for torch
    import torch
    from torch import Tensor


class GraphSupport(enum.IntEnum):
    """Which batches a backend can run inside a captured graph: none, decode rows only, or any mixture of rows."""

    NEVER = 0
    DECODE = 1
    MIXED = 2


@dataclass(slots=True, frozen=True, kw_only=True)
class AttentionSpec:
    """What the engine asks of a backend. It stays the same for the lifetime of the backend. Head counts are those of
    one tensor-parallel rank."""

    device: torch.device
    dtype: torch.dtype
    kv_dtype: torch.dtype
    num_heads: int
    num_kv_heads: int
    head_size: int
    block_size: int
    num_layers: int
    scale: float
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    windows: tuple[int | None, ...] = ()
    """How many tokens of a sequence each layer attends to, the query's own included; None for all of them. Empty if no
    layer has a window that matters."""
    softcap: float | None = None
    """c in c tanh(score / c), with which scores are limited after `scale` and before the mask; None for no limit."""

    def window(self, layer: int) -> int | None:
        """The window of one layer."""
        return self.windows[layer] if self.windows else None


@dataclass(slots=True, kw_only=True)
class BatchLayout:
    """Where the tokens of a step lie. Row r owns tokens `query_start_R1[r]:query_start_R1[r+1]`. These are the last of
    its `seq_lens_R[r]` tokens; the earlier ones are in the cache. Decode rows (one token) come first.

    The device tensors are buffers that the runner may reuse in the next step. `*_host` are plain lists of the same
    values, so that planning needs no device synchronisation. In a captured batch the lists are empty, because lengths
    change from replay to replay on the device alone. Rows that pad such a batch come last. They have length 0 and no
    tokens; if all rows are decode rows, a padding row has one token in slot -1.
    """

    num_rows: int
    num_tokens: int
    num_decode_rows: int
    """How many of the rows are decode rows; 0 if `kinds_vary`."""
    query_start_R1: Tensor
    """[R+1] int32: where the tokens of each row begin, and the end of the last row."""
    seq_lens_R: Tensor
    """[R] int32: tokens of each row, including those of this step."""
    block_table_RB: Tensor
    """[R, >=B] int32: the KV blocks of each row. Entries past a row's blocks are undefined."""
    slot_mapping_T: Tensor
    """[T] int64: the slot (block * block_size + offset) that each token's KV is written to. -1 marks padding, which is
    not written."""
    positions_T: Tensor
    """[T] int64: the position of each token in its sequence."""
    query_start_host: list[int]
    seq_lens_host: list[int]
    kinds_vary: bool = False
    """Whether the batch is captured with prompt chunks. The number of decode rows (one token) then differs from replay
    to replay, too. Only backends with `GraphSupport.MIXED` get such a batch."""


class AttentionBackend(ABC):
    """Writes the step's keys and values into the paged cache and attends over it.

    The framework constructs it as `Backend(spec, **parameters)`.
    """

    graph_support: GraphSupport = GraphSupport.NEVER
    separate_write: bool = False
    """Whether `attend` exists and the cache is [2 (K, V), num_blocks, block_size, M, H]. If so, the framework may fuse
    the cache write with the operations before it, and call `attend` instead of `forward`."""
    exact: bool = True
    """Whether each token attends to all tokens before it, up to rounding. False for a window, a sparse selection or any
    other approximation: `check` then reports how far it is off, and each cell measures perplexity and divergence
    against exact attention. A backend that is not exact and does not say so ends the cell as failed."""
    supports_windows: bool = False
    """Whether it follows `spec.windows`. One that does not say so is refused for a model that has windows."""
    supports_softcap: bool = False
    """Whether it follows `spec.softcap`, likewise."""

    def __init__(self, spec: AttentionSpec) -> None:
        self.spec = spec

    @classmethod
    @abstractmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        """Why this backend can't serve this machine or shape, and what to choose instead. None if it can."""

    @classmethod
    def preferred_block_size(cls, device_type: str, parameters: Mapping[str, Any]) -> int:
        """The `engine.block_size` that suits the backend best. It is used if the configuration leaves the size open.

        Args:
            device_type: `cpu` or `cuda`.
            parameters: the configuration keys of the backend.
        """
        return 16

    @classmethod
    def lacks(cls, spec: AttentionSpec) -> str | None:
        """What the model asks for and the backend does not say that it has. The framework asks this before
        `unsupported_reason`."""
        if spec.windows and not cls.supports_windows:
            window = min(window for window in spec.windows if window is not None)
            return (
                f"it has no windows, and this model has layers that attend to {window} tokens; choose attention=sdpa, "
                f"or engine.max_model_len={window} or less"
            )
        if spec.softcap is not None and not cls.supports_softcap:
            return f"it cannot cap scores, as this model does at {spec.softcap:g}; choose attention=sdpa"
        return None

    def implementation(self) -> str:
        """The name and version of the code that computes attention, for the record: `flash-attn 2.8.3`."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    @abstractmethod
    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        """The shape of one layer's cache tensor, of dtype `spec.kv_dtype`."""

    @abstractmethod
    def plan(self, batch: BatchLayout) -> Any:
        """Prepare what `forward` needs. Called once per step.

        A backend that supports graphs plans a captured batch by device work alone, because planning is captured with
        the step.
        """

    @abstractmethod
    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: Any
    ) -> Tensor:
        """Write K and V, then attend. Returns [T, N, H]. It runs inside graphs, so it must not synchronise with the
        host."""

    def attend(self, layer: int, q_TNH: Tensor, kv_cache: Tensor, metadata: Any) -> Tensor:
        """Attend without writing: the step's keys and values are in the cache already. Only with `separate_write`."""
        raise NotImplementedError
