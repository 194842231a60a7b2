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
    """Which batches a backend can run inside a captured graph."""

    NEVER = 0
    DECODE = 1
    MIXED = 2


@dataclass(slots=True, frozen=True, kw_only=True)
class AttentionSpec:
    """What the engine asks of a backend; fixed for its lifetime. Head counts are those of one tensor-parallel rank."""

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


@dataclass(slots=True, kw_only=True)
class BatchLayout:
    """Where the tokens of a step lie. Row r owns tokens `query_start_R1[r]:query_start_R1[r+1]`, the last ones of its
    `seq_lens_R[r]` tokens; earlier ones are in the cache. Decode rows (one token) come first.

    The device tensors are buffers that the runner may reuse in the next step. `*_host` are plain lists of the same
    values, so that planning needs no device synchronisation. In a captured batch the lists are empty: lengths change
    from replay to replay, on the device alone. Rows that pad such a batch come last; they have length 0 and no tokens
    (where all are decode rows: one token, of slot -1).
    """

    num_rows: int
    num_tokens: int
    num_decode_rows: int
    """0 if `kinds_vary`"""
    query_start_R1: Tensor
    """[R+1] int32"""
    seq_lens_R: Tensor
    """[R] int32, this step's tokens included"""
    block_table_RB: Tensor
    """[R, >=B] int32; entries past a row's blocks are undefined"""
    slot_mapping_T: Tensor
    """[T] int64: block * block_size + offset where each token's KV is written; -1 (padding) writes nowhere"""
    positions_T: Tensor
    """[T] int64"""
    query_start_host: list[int]
    seq_lens_host: list[int]
    kinds_vary: bool = False
    """Captured with prompt chunks: how many rows are decode rows (one token) differs from replay to replay too. For
    backends with `GraphSupport.MIXED` only."""


class AttentionBackend(ABC):
    """Writes the step's keys and values into the paged cache and attends over it.

    Constructed as `Backend(spec, **parameters)`.
    """

    graph_support: GraphSupport = GraphSupport.NEVER
    separate_write: bool = False
    """Whether `attend` exists and the cache is [2 (K, V), num_blocks, block_size, M, H]: then the framework may fuse
    the cache write with what comes before it, and call `attend` where it would have called `forward`."""

    def __init__(self, spec: AttentionSpec) -> None:
        self.spec = spec

    @classmethod
    @abstractmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        """Why this machine or shape can't be served, with what to choose instead; None when it can."""

    @classmethod
    def preferred_block_size(cls, device_type: str, parameters: Mapping[str, Any]) -> int:
        """The `engine.block_size` that suits it best, which it gets where the configuration leaves that open.

        Args:
            device_type: `cpu` or `cuda`.
            parameters: its keys of the configuration.
        """
        return 16

    def implementation(self) -> str:
        """Whose code computes it, with its version, for the record: `flash-attn 2.8.3`."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    @abstractmethod
    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        """The shape of one layer's cache tensor, of dtype `spec.kv_dtype`."""

    @abstractmethod
    def plan(self, batch: BatchLayout) -> Any:
        """Prepare what `forward` needs, once a step.

        A backend that supports graphs plans such a batch by device work alone: it is captured with the step.
        """

    @abstractmethod
    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: Any
    ) -> Tensor:
        """Write K and V, then attend; returns [T, N, H]. Runs inside graphs, so it never synchronises with the host."""

    def attend(self, layer: int, q_TNH: Tensor, kv_cache: Tensor, metadata: Any) -> Tensor:
        """`forward` after the step's keys and values were written to the cache; only with `separate_write`."""
        raise NotImplementedError
