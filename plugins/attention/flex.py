"""PyTorch's FlexAttention over the paged cache, with the block table as the block mask."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn.attention.flex_attention import BlockMask

_QUERY_BLOCK = 128
_MAX_KEY_TILE, _MIN_KEY_TILE = 64, 16
_NO_BLOCK = 1 << 20
"""Place in the table of a block that is not in it: behind every row's last token."""


@dataclass(slots=True)
class Group:
    """Rows with equally many new tokens, attended in one call: all decode rows, or one prefill chunk."""

    start: int
    stop: int
    """Their tokens among the step's"""
    table_GB: Tensor
    """[G, B] int64, block tables; entries past a row's blocks repeat its first. On a CPU they count in `block_U`"""
    first_G: Tensor
    """[G] int64, the position of each row's first new token"""
    block_U: Tensor | None
    """[U] int64, on a CPU the blocks to attend over"""
    mask: BlockMask | None = None


@dataclass(slots=True)
class Metadata:
    """What all layers of a step share."""

    slot_W: Tensor
    """[W] int64: where the W written tokens go"""
    written_W: Tensor
    """[W] int64: which of the step's tokens are written"""
    unwritten_F: Tensor
    """[F] int64: the slots of the rows' last blocks that hold no token yet"""
    groups: list[Group]


@ATTENTIONS.register("flex")
class Flex(AttentionBackend):
    """PyTorch's FlexAttention (Dong et al., "Flex Attention", arXiv 2412.05496) in place over the paged cache.

    The cache is [2 (K, V), num_blocks, block_size, M, H] and is one sequence of keys for all rows. As in the paper's
    paged attention, a row's block table lists the blocks that the row visits. The mask turns a physical position
    back into a logical one through the inverse of that table.

    Compiled on a GPU, into a Triton kernel whose key tiles lie within blocks. On a CPU it runs PyTorch's unfused form,
    right and slow, over a copy of the step's blocks, since unfused each row is multiplied with every block given. Both
    multiply masked values by 0, so what a row's last block holds past its last token, maybe NaN, is zeroed each step.
    """

    graph_support = GraphSupport.NEVER

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        if spec.kv_dtype != spec.dtype:
            return f"attention=flex needs the model's dtype {spec.dtype} in the cache, not {spec.kv_dtype}"
        if spec.device.type != "cuda":
            return None
        if spec.block_size % _MIN_KEY_TILE:
            return (
                f"attention=flex needs a block size that is a multiple of {_MIN_KEY_TILE} on a GPU, not "
                f"{spec.block_size}; choose engine.block_size=16 or attention=sdpa"
            )
        if spec.head_size < _MIN_KEY_TILE:
            return (
                f"attention=flex needs heads of at least {_MIN_KEY_TILE}, not {spec.head_size}; choose attention=sdpa"
            )
        return None

    def implementation(self) -> str:
        import torch

        return f"flex_attention of PyTorch {torch.__version__}"

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        return (2, num_blocks, self.spec.block_size, self.spec.num_kv_heads, self.spec.head_size)

    def plan(self, batch: BatchLayout) -> Metadata:
        slot_T, starts = batch.slot_mapping_T, batch.query_start_host
        written_W = (slot_T >= 0).nonzero().squeeze(1)
        num_decode = batch.num_decode_rows
        rows = [slice(0, num_decode)] if num_decode else []
        rows += [slice(row, row + 1) for row in range(num_decode, batch.num_rows)]
        groups = [self._plan_group(batch, row, starts[row.start], starts[row.stop]) for row in rows]
        return Metadata(slot_T[written_W], written_W, self._unwritten(batch), groups)

    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: Metadata
    ) -> Tensor:
        import torch

        kv_cache[1].flatten(0, 1).index_fill_(0, metadata.unwritten_F, 0)
        for cache, new_TMH in zip(kv_cache.flatten(1, 2), (k_TMH, v_TMH), strict=True):
            cache.index_copy_(0, metadata.slot_W, new_TMH[metadata.written_W])
        out_TNH = torch.zeros_like(q_TNH)  # padding's share stays 0
        for group in metadata.groups:
            tokens = slice(group.start, group.stop)
            q_GNCH = q_TNH[tokens].unflatten(0, (len(group.first_G), -1)).transpose(1, 2)
            blocks = kv_cache if group.block_U is None else kv_cache.index_select(1, group.block_U)
            k_1MSH, v_1MSH = blocks.flatten(1, 2).transpose(1, 2).unsqueeze(1)
            if group.mask is None:  # how many blocks there are is known now
                group.mask = self._mask(group, blocks.shape[1])
            out_GNCH = self._attend(q_GNCH, k_1MSH, v_1MSH, group.mask)
            out_TNH[tokens] = out_GNCH.transpose(1, 2).flatten(0, 1)
        return out_TNH

    def _unwritten(self, batch: BatchLayout) -> Tensor:
        import torch

        size = self.spec.block_size
        last_R1 = batch.seq_lens_R.long().unsqueeze(1) - 1
        block_R1 = batch.block_table_RB.gather(1, last_R1 // size).long()
        offset_S = torch.arange(size, device=last_R1.device)
        return (block_R1 * size + offset_S)[offset_S > last_R1 % size]

    def _plan_group(self, batch: BatchLayout, rows: slice, start: int, stop: int) -> Group:
        import torch

        lengths = batch.seq_lens_host[rows]
        num_new = (stop - start) // len(lengths)
        device = batch.block_table_RB.device
        length_G = torch.tensor(lengths, device=device)
        index_B = torch.arange(max(2, -(-max(lengths) // self.spec.block_size)), device=device)  # 1 is compiled apart
        used_GB = index_B * self.spec.block_size < length_G.unsqueeze(1)
        table_GB = batch.block_table_RB[rows].long()
        table_GB = table_GB.gather(1, index_B.where(used_GB, 0))
        block_U = None
        if device.type == "cpu":
            block_U, table_GB = table_GB.unique(return_inverse=True)
        return Group(start, stop, table_GB, length_G - num_new, block_U)

    def _mask(self, group: Group, num_blocks: int) -> BlockMask:
        import torch
        from torch.nn.attention.flex_attention import BlockMask

        size, table_GB, first_G = self.spec.block_size, group.table_GB, group.first_G
        num_rows, num_columns = table_GB.shape
        num_new = (group.stop - group.start) // num_rows
        index_B = torch.arange(num_columns, device=table_GB.device)
        inverse_GS = torch.full((num_rows, num_blocks), _NO_BLOCK, device=table_GB.device)
        inverse_GS.scatter_reduce_(1, table_GB, index_B.expand_as(table_GB), "amin")  # repeats of the first come later

        def mask_mod(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return inverse_GS[row, key // size] * size + key % size <= first_G[row] + query

        last_Q = torch.arange(_QUERY_BLOCK, num_new + _QUERY_BLOCK, _QUERY_BLOCK, device=table_GB.device)
        visible_G1Q = (first_G.unsqueeze(1) + last_Q.clamp(max=num_new)).unsqueeze(1)
        count_G1Q = ((visible_G1Q + size - 1) // size).int()
        table_G1QB = table_GB.int()[:, None, None].expand(-1, 1, len(last_Q), -1)
        return BlockMask.from_kv_blocks(
            count_G1Q,
            table_G1QB.contiguous(),
            BLOCK_SIZE=(_QUERY_BLOCK, size),
            mask_mod=mask_mod,
            seq_lengths=(num_new, num_blocks * size),
            compute_q_blocks=False,
        )

    def _attend(self, q_GNCH: Tensor, k_1MSH: Tensor, v_1MSH: Tensor, mask: BlockMask) -> Tensor:
        from torch.nn.attention.flex_attention import flex_attention

        attend: Any = flex_attention
        options: dict[str, Any] = {}
        if q_GNCH.is_cuda:
            attend = _compiled()
            size = self.spec.block_size
            options["kernel_options"] = {"BLOCK_N": min(size & -size, _MAX_KEY_TILE)}  # a tile lies within a block
        out: Tensor = attend(q_GNCH, k_1MSH, v_1MSH, block_mask=mask, scale=self.spec.scale, enable_gqa=True, **options)
        return out


@functools.cache
def _compiled() -> Any:
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    # fullgraph: beyond its limit of variants PyTorch would else run the unfused form, without a word in the record.
    return torch.compile(flex_attention, dynamic=True, fullgraph=True)
