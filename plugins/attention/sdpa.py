"""Plain PyTorch attention over the paged cache: the reference for every other backend, on any device."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

if TYPE_CHECKING:
    from torch import Tensor

_LENGTH_RATIO = 0.75
"""Decode rows attend together while the shortest is at least this share of the longest: what padding may cost."""
_CPU_GROUP_SLOTS = 1 << 10
"""Most token positions gathered for one group of decode rows on a CPU, where the copy should stay in the cache and off
fresh pages (twice as fast as 16,384)."""
_PIECE_TOKENS = 512
"""The length of the pieces that prompt chunks are cut into on a GPU. No later token is gathered for a piece."""
_GROUP_BYTES, _GROUP_SCORES = 1 << 29, 1 << 26
"""Most bytes of keys and values gathered, and most scores masked, for one group on a GPU"""
_LAUNCH_SLOTS = 1 << 14
"""Positions of padding that cost about as much as the launches of one more group"""
_ALIGN = 16
"""Context lengths of a group are a multiple of this, as the kernel wants rows of the mask aligned"""


@dataclass(slots=True)
class Piece:
    """New tokens of one row, `first` and those after it among the step's, at the end of a context of `length`."""

    row: int
    first: int
    num_new: int
    length: int


@dataclass(slots=True)
class Group:
    """Pieces that attend in one call, padded to C new tokens and contexts of L: both repeat a piece's last token."""

    token_GC: Tensor
    """[G, C] int64, their tokens among the step's"""
    slot_GL: Tensor
    """[G, L] int64, where their contexts lie in the cache"""
    mask: Tensor | None
    """[G, 1, Q, L], what each of the queries that share a KV head attends to: bool, or 0 and -inf to be added; Q may be
    1 for the same mask. None where all see all of it"""


@dataclass(slots=True)
class PrefillChunk:
    """A row with several tokens, `start:stop` of the step's, that attends alone."""

    start: int
    stop: int
    slot_L: Tensor | None
    """[L] int64, where what it reads of its context lies in the cache; None when the chunk is all of it"""
    mask_CL: Tensor | None
    """[C, L] bool, which of L positions each of its C tokens attends to; None for all up to its own"""


@dataclass(slots=True)
class Metadata:
    """The step's rows, sorted by how they are attended."""

    slot_W: Tensor
    """[W] int64: where the W written tokens go"""
    written_W: Tensor | None
    """[W] int64: which of the step's tokens are written; None for all"""
    by_window: dict[int | None, tuple[list[Group], list[PrefillChunk]]]
    """For each window that a layer has, None for no window: the rows of layers with it"""


@ATTENTIONS.register("sdpa")
class SDPA(AttentionBackend):
    """PyTorch's `scaled_dot_product_attention` for decode rows of similar length, and for prompt chunks.

    The cache is [2 (K, V), num_blocks, block_size, M, H]. Contexts are gathered by token position, and the positions
    that pad a row repeat its last token: memory that holds no token of the row is never read, whatever is in it. A
    cache of e4m3 (8 bits) holds numbers up to 448, which larger ones become.

    On a CPU each chunk attends alone. On a GPU chunks are cut into pieces, and pieces of similar shape attend together,
    all of them with a mask and PyTorch's memory-efficient kernel. It goes over a context from its start in tiles of one
    size, so a token's result does not depend on its batch.
    """

    graph_support = GraphSupport.NEVER
    supports_windows = True
    supports_softcap = True

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__(spec)
        self._on_gpu = spec.device.type == "cuda"

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        if spec.kv_dtype.itemsize < 2 and "float8_e4m3fn" not in str(spec.kv_dtype):
            return f"attention=sdpa has no cache of {spec.kv_dtype}; set executor.kv_dtype=fp8 (e4m3) or auto"
        return None

    def implementation(self) -> str:
        import torch

        return f"scaled_dot_product_attention of PyTorch {torch.__version__}"

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        return (2, num_blocks, self.spec.block_size, self.spec.num_kv_heads, self.spec.head_size)

    def plan(self, batch: BatchLayout) -> Metadata:
        by_window: dict[int | None, tuple[list[Group], list[PrefillChunk]]] = {}
        for window in dict.fromkeys(self.spec.windows or (None,)):
            by_window[window] = (
                (self._plan_pieces(batch, window), []) if self._on_gpu else self._plan_rows(batch, window)
            )
        slot_T = batch.slot_mapping_T
        written_W = (slot_T >= 0).nonzero().squeeze(1)
        all_written = written_W.numel() == slot_T.numel()
        return Metadata(slot_T[written_W], None if all_written else written_W, by_window)

    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: Metadata
    ) -> Tensor:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        k_SMH, v_SMH = kv_cache.view(2, -1, *kv_cache.shape[3:])
        for cache_SMH, new_TMH in ((k_SMH, k_TMH), (v_SMH, v_TMH)):
            new_WMH = new_TMH if metadata.written_W is None else new_TMH[metadata.written_W]
            _write(cache_SMH, metadata.slot_W, new_WMH)
        groups, chunks = metadata.by_window[self.spec.window(layer)]
        out_TNH = torch.zeros_like(q_TNH) if metadata.written_W is not None else torch.empty_like(q_TNH)
        one_kernel = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # the second for shapes that the first refuses
        with sdpa_kernel(one_kernel) if self._on_gpu else contextlib.nullcontext():
            for group in groups:
                out_TNH[group.token_GC] = self._attend_group(group, q_TNH[group.token_GC], k_SMH, v_SMH)
        for chunk in chunks:
            tokens = slice(chunk.start, chunk.stop)
            if chunk.slot_L is None:
                k_LMH, v_LMH = k_TMH[tokens], v_TMH[tokens]
            else:
                k_LMH, v_LMH = (_gather(cache_SMH, chunk.slot_L).to(q_TNH.dtype) for cache_SMH in (k_SMH, v_SMH))
            out_TNH[tokens] = self._attend_chunk(q_TNH[tokens], k_LMH, v_LMH, chunk.mask_CL)
        return out_TNH

    def _plan_rows(self, batch: BatchLayout, window: int | None) -> tuple[list[Group], list[PrefillChunk]]:
        starts, lengths = batch.query_start_host, batch.seq_lens_host
        decode_rows, chunks = [], []
        for row in range(batch.num_rows):
            num_new = starts[row + 1] - starts[row]
            if num_new == 1:
                decode_rows.append(row)
            elif num_new > 1:
                chunks.append(self._plan_chunk(batch, row, window))
        read = lengths if window is None else [min(length, window) for length in lengths]
        return [self._plan_group(batch, rows, read) for rows in _similar_lengths(decode_rows, read)], chunks

    def _plan_pieces(self, batch: BatchLayout, window: int | None) -> list[Group]:
        spec = self.spec
        slot_bytes = 2 * spec.num_kv_heads * spec.head_size * spec.dtype.itemsize
        sharing = spec.num_heads // spec.num_kv_heads
        pieces = _pieces(batch.query_start_host, batch.seq_lens_host)
        groups = _similar_shapes(pieces, _GROUP_BYTES // slot_bytes, _GROUP_SCORES // sharing)
        return [self._plan_masked(batch, group, sharing, window) for group in groups]

    def _plan_masked(self, batch: BatchLayout, pieces: list[Piece], sharing: int, window: int | None) -> Group:
        import torch

        numbers = [[piece.row, piece.first, piece.num_new - 1, piece.length - 1] for piece in pieces]
        device = batch.block_table_RB.device
        row_G, first_G, last_new_G, last_G = torch.tensor(numbers).to(device).unbind(1)
        new_C = torch.arange(max(piece.num_new for piece in pieces), device=device)
        new_GC = new_C.minimum(last_new_G.unsqueeze(1))
        longest = max(piece.length for piece in pieces)
        position_L = torch.arange(longest + -longest % _ALIGN, device=device)
        slot_GL = self._slots(batch.block_table_RB[row_G], position_L.minimum(last_G.unsqueeze(1)))
        position_GC = new_GC + (last_G - last_new_G).unsqueeze(1)
        hidden_GCL = position_L > position_GC.unsqueeze(2)
        if window is not None:
            hidden_GCL |= position_L <= position_GC.unsqueeze(2) - window
        mask_GCL = torch.zeros(hidden_GCL.shape, dtype=self.spec.dtype, device=device).masked_fill_(
            hidden_GCL, -torch.inf
        )
        return Group(first_G.unsqueeze(1) + new_GC, slot_GL, mask_GCL.repeat_interleave(sharing, 1).unsqueeze(1))

    def _plan_chunk(self, batch: BatchLayout, row: int, window: int | None) -> PrefillChunk:
        import torch

        start, stop, length = batch.query_start_host[row], batch.query_start_host[row + 1], batch.seq_lens_host[row]
        is_whole = (
            stop - start == length and self.spec.kv_dtype == self.spec.dtype
        )  # else the cache would round K and V
        if is_whole and (window is None or window >= length):
            return PrefillChunk(start, stop, None, None)
        before = length - (stop - start)
        first = 0 if window is None or is_whole else max(0, before - window + 1)
        position_L = torch.arange(first, length, device=batch.block_table_RB.device)
        position_C1 = position_L[before - first :].unsqueeze(1)
        mask_CL = position_L <= position_C1
        if window is not None:
            mask_CL &= position_L > position_C1 - window
        if is_whole:
            return PrefillChunk(start, stop, None, mask_CL)
        return PrefillChunk(start, stop, self._slots(batch.block_table_RB[row], position_L), mask_CL)

    def _plan_group(self, batch: BatchLayout, rows: list[int], read: list[int]) -> Group:
        """The last `read[row]` positions of each of the rows."""
        import torch

        device = batch.block_table_RB.device
        lengths = [read[row] for row in rows]
        last_G1 = torch.tensor(lengths, device=device).unsqueeze(1) - 1
        position_L = torch.arange(max(lengths), device=device)
        position_GL = position_L.minimum(last_G1)
        if read is not batch.seq_lens_host:
            skipped = [batch.seq_lens_host[row] - read[row] for row in rows]
            position_GL = position_GL + torch.tensor(skipped, device=device).unsqueeze(1)
        slot_GL = self._slots(batch.block_table_RB[torch.tensor(rows, device=device)], position_GL)
        token_G1 = torch.tensor([[batch.query_start_host[row]] for row in rows], device=device)
        mask_GL = None if min(lengths) == max(lengths) else position_L <= last_G1
        return Group(token_G1, slot_GL, None if mask_GL is None else mask_GL[:, None, None])

    def _slots(self, block_table: Tensor, position: Tensor) -> Tensor:
        """The cache slot of each position; both arguments [..., B] and [..., L] of as many rows."""
        block = block_table.long().gather(-1, position // self.spec.block_size)
        return block * self.spec.block_size + position % self.spec.block_size

    def _attend_group(self, group: Group, q_GCNH: Tensor, k_SMH: Tensor, v_SMH: Tensor) -> Tensor:
        """The query heads that share a KV head become queries of one head: [G, M, C * N/M, H] over [G, M, L, H]."""
        k_GLMH, v_GLMH = (_gather(cache_SMH, group.slot_GL).to(q_GCNH.dtype) for cache_SMH in (k_SMH, v_SMH))
        k_GMLH, v_GMLH = k_GLMH.transpose(1, 2), v_GLMH.transpose(1, 2)
        q_GMCQH = q_GCNH.unflatten(2, (self.spec.num_kv_heads, -1)).transpose(1, 2)
        out_GMQH = self._attend(q_GMCQH.flatten(2, 3), k_GMLH, v_GMLH, group.mask)
        return out_GMQH.view(q_GMCQH.shape).transpose(1, 2).flatten(2, 3)

    def _attend_chunk(self, q_CNH: Tensor, k_LMH: Tensor, v_LMH: Tensor, mask_CL: Tensor | None) -> Tensor:
        """KV heads become the batch, so that the query heads that share one read it without a copy: [M, N/M, C, H]."""
        q_MQCH = q_CNH.transpose(0, 1).unflatten(0, (self.spec.num_kv_heads, -1))
        shape = (-1, q_MQCH.shape[1], -1, -1)
        k_MQLH, v_MQLH = (x_LMH.transpose(0, 1).unsqueeze(1).expand(shape) for x_LMH in (k_LMH, v_LMH))
        return self._attend(q_MQCH, k_MQLH, v_MQLH, mask_CL, causal=mask_CL is None).flatten(0, 1).transpose(0, 1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        from torch.nn.functional import scaled_dot_product_attention

        if self.spec.softcap is not None:
            return self._attend_capped(q, k, v, mask, self.spec.softcap, causal)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=self.spec.scale)

    def _attend_capped(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cap: float, causal: bool) -> Tensor:
        """`scaled_dot_product_attention` has no soft cap, so this is it step by step, with float32 scores."""
        import torch

        scores = (q.float() @ k.float().mT) * self.spec.scale
        scores = (scores / cap).tanh_().mul_(cap)
        if causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        if mask is not None:
            scores = scores.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return (scores.softmax(-1) @ v.float()).to(q.dtype)


def _write(cache_SMH: Tensor, slot_W: Tensor, new_WMH: Tensor) -> None:
    import torch

    if cache_SMH.dtype.itemsize > 1:
        cache_SMH.index_copy_(0, slot_W, new_WMH.to(cache_SMH.dtype))
        return
    largest = torch.finfo(cache_SMH.dtype).max  # beyond it some versions of PyTorch make NaN
    narrow_WMH = new_WMH.clamp(-largest, largest).to(cache_SMH.dtype)
    cache_SMH.view(torch.uint8).index_copy_(0, slot_W, narrow_WMH.view(torch.uint8))


def _gather(cache_SMH: Tensor, slot: Tensor) -> Tensor:
    """[..., M, H]: the entries at slots [...]. As rows of a matrix: on a CPU much faster than `cache_SMH[slot]`."""
    import torch

    raw_SMH = cache_SMH if cache_SMH.dtype.itemsize > 1 else cache_SMH.view(torch.uint8)  # e4m3 is not indexed on a GPU
    rows = raw_SMH.flatten(1).index_select(0, slot.flatten())
    return rows.view(*slot.shape, *cache_SMH.shape[1:]).view(cache_SMH.dtype)


def _similar_lengths(rows: list[int], lengths: list[int], max_slots: int = _CPU_GROUP_SLOTS) -> list[list[int]]:
    """Partition `rows` into groups of similar context lengths, longest first, of at most `max_slots` once padded."""
    groups: list[list[int]] = []
    longest = 0
    for row in sorted(rows, key=lambda row: -lengths[row]):
        full = bool(groups) and (len(groups[-1]) + 1) * longest > max_slots
        if not groups or full or lengths[row] < math.ceil(longest * _LENGTH_RATIO):
            groups.append([])
            longest = lengths[row]
        groups[-1].append(row)
    return groups


def _pieces(starts: list[int], lengths: list[int]) -> list[Piece]:
    """All tokens of a step, row `r` having `starts[r]:starts[r + 1]` of them."""
    pieces = []
    for row, length in enumerate(lengths):
        for first in range(starts[row], starts[row + 1], _PIECE_TOKENS):
            end = min(first + _PIECE_TOKENS, starts[row + 1])
            pieces.append(Piece(row, first, end - first, length - (starts[row + 1] - end)))
    return pieces


def _similar_shapes(pieces: list[Piece], max_slots: int, max_scores: int) -> list[list[Piece]]:
    """Partition into groups, each padded to a power of two of new tokens and to its longest context.

    Args:
        max_slots: positions of all contexts of a group of several, once padded.
        max_scores: pairs of a new token and a position, likewise.
    """
    groups: list[list[Piece]] = []
    width = longest = used = 0
    for piece in sorted(pieces, key=lambda one: (_power(one.num_new), one.length), reverse=True):
        slots = (len(groups[-1]) + 1) * longest if groups else 0
        fits = slots <= max_slots and slots * width <= max_scores and slots - used <= _LAUNCH_SLOTS + used // 3
        if not groups or _power(piece.num_new) != width or not fits:
            groups.append([])
            width, longest, used = _power(piece.num_new), piece.length, 0
        groups[-1].append(piece)
        used += piece.length
    return groups


def _power(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()
