"""Token embedding and LM head, the vocabulary split over tensor-parallel ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from framework.models.layers.block_layer import LayerOfBlocks
from framework.models.layers.linear import LinearLayer
from framework.models.layers.placement import Placement
from framework.models.layers.quantized import QuantizedRows
from framework.models.layers.weight_slot import ShardId, WeightSource

_ROW_MULTIPLE = 8
"""Each rank's share of the vocabulary is padded to a multiple of it, since GPU matrix kernels want aligned rows."""


class _VocabShard:
    """Which rows of the padded vocabulary a rank holds."""

    def __init__(self, vocab_size: int, hidden_size: int, place: Placement) -> None:
        unit = _ROW_MULTIPLE * place.group.size
        self.full_shape = (vocab_size, hidden_size)
        self.num_rows = (vocab_size + unit - 1) // unit * _ROW_MULTIPLE
        self.start = place.group.rank * self.num_rows
        self.num_real_rows = max(0, min(vocab_size - self.start, self.num_rows))

    def load(self, weight: nn.Parameter, source: WeightSource) -> None:
        weight.data[: self.num_real_rows].copy_(source[self.start : self.start + self.num_real_rows])
        weight.data[self.num_real_rows :].zero_()

    def of_blocks(self, source: QuantizedRows) -> QuantizedRows:
        return source.row_slice(self.start, self.num_rows)


class VocabParallelEmbedding(LayerOfBlocks):
    """Rows of the embedding table split over the ranks; a rank contributes zeros for tokens that it doesn't hold.

    Attributes:
        kernel: looks up `rows [T] -> [T, D]` in place of `F.embedding` when set, e.g. in blocks.
    """

    def __init__(self, vocab_size: int, hidden_size: int, *, place: Placement) -> None:
        super().__init__()
        self.kernel: Callable[[Tensor], Tensor] | None = None
        self.group = place.group
        self._shard = _VocabShard(vocab_size, hidden_size, place)
        self.weight = place.empty(self._shard.num_rows, hidden_size)

    def forward(self, token_ids_T: Tensor) -> Tensor:
        """[T] int32 or int64 -> [T, D]."""
        if self.group.size == 1:
            return self._look_up(token_ids_T)
        local_T = token_ids_T - self._shard.start
        elsewhere_T = (local_T < 0) | (local_T >= self._shard.num_rows)
        hidden_TD = self._look_up(local_T.masked_fill(elsewhere_T, 0))
        return self.group.all_reduce(hidden_TD.masked_fill_(elsewhere_T[:, None], 0))

    def _look_up(self, rows_T: Tensor) -> Tensor:
        return F.embedding(rows_T, self.weight) if self.kernel is None else self.kernel(rows_T)

    def full_shape(self, param_name: str, shard_id: ShardId = None) -> tuple[int, ...]:
        return self._shard.full_shape

    def load(self, param_name: str, source: WeightSource, shard_id: ShardId = None) -> None:
        self._shard.load(self.weight, source)

    def share_of_blocks(self, source: QuantizedRows, shard_id: ShardId = None) -> QuantizedRows | None:
        return self._shard.of_blocks(source)


class ParallelLMHead(LinearLayer):
    """Logits of the whole vocabulary from hidden states, each rank computing its share.

    `tied_to` makes it share the embedding's weight instead of holding its own.

    Attributes:
        split: leave each rank the logits of its own tokens, those from id `first_token` on, instead of gathering all.
    """

    def __init__(
        self, vocab_size: int, hidden_size: int, *, place: Placement, tied_to: VocabParallelEmbedding | None = None
    ) -> None:
        super().__init__()
        self.group = place.group
        self.vocab_size = vocab_size
        self._shard = _VocabShard(vocab_size, hidden_size, place)
        self.weight = place.empty(self._shard.num_rows, hidden_size) if tied_to is None else tied_to.weight
        self.bias = None
        self.split = False

    @property
    def first_token(self) -> int:
        """The id of the first token of this rank."""
        return self._shard.start

    @property
    def can_split(self) -> bool:
        """Whether there are several ranks and each of them has a token."""
        return self.group.size > 1 and (self.group.size - 1) * self._shard.num_rows < self.vocab_size

    def forward(self, hidden_RD: Tensor) -> Tensor:
        """[R, D] -> [R, V] in the model's dtype, the same on every rank; [R, W], its own share, when `split`."""
        return self.share_of(self.apply_linear(hidden_RD))

    def share_of(self, logits_RW: Tensor) -> Tensor:
        """The output of `forward` from the product with this rank's weight, including padding."""
        if self.split:
            return logits_RW[:, : self._shard.num_real_rows]
        return self.group.all_gather(logits_RW, dim=-1)[:, : self.vocab_size]

    def gather(self, logits_RW: Tensor) -> Tensor:
        """[R, W] of each rank, as `forward` leaves them when `split` -> [R, V] on every rank."""
        padded_RW = F.pad(logits_RW, (0, self._shard.num_rows - logits_RW.shape[1]))
        return self.group.all_gather(padded_RW, dim=-1)[:, : self.vocab_size]

    def full_shape(self, param_name: str, shard_id: ShardId = None) -> tuple[int, ...]:
        return self._shard.full_shape

    def load(self, param_name: str, source: WeightSource, shard_id: ShardId = None) -> None:
        self._shard.load(self.weight, source)

    def share_of_blocks(self, source: QuantizedRows, shard_id: ShardId = None) -> QuantizedRows | None:
        return self._shard.of_blocks(source)
