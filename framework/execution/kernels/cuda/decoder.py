"""The forward pass of a decoder with fused kernels: nine per layer for many tokens, eight for dozens, six for one.

The number of tokens in the step decides which kernels run, but it should not change the result of a token. So all sets
of kernels round to the model's type at the same places: normalised inputs, queries, keys and values, the output of
attention, gate and up, and their product. The residual stream, what is added to it, norms and logits are float32. Only
the order of float32 sums still depends on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from framework.execution.kernels.cuda import skinny
from framework.execution.kernels.cuda import split_linear as split
from framework.execution.kernels.cuda.activation import silu_and_mul
from framework.execution.kernels.cuda.embedding import embed
from framework.execution.kernels.cuda.norm import rms_norm
from framework.execution.kernels.cuda.qkv import QKVShape, rotate_and_write
from framework.execution.kernels.cuda.skinny import skinny_linear
from framework.execution.kernels.cuda.split_linear import add_product, product_in_float32, split_linear
from framework.models.decoder import DecoderLM
from framework.models.decoder_layer import DecoderLayer
from framework.models.layers.linear import RowParallelLinear
from framework.models.layers.norm import RMSNorm

AttendCached = Callable[[int, Tensor], Tensor]
"""`attend(layer, q_TNH) -> [T, N, H]`. It is called when the keys and values of the step are in the cache."""

FUSED_ROWS = 1
"""With up to this many tokens, the products add to the residual themselves where products of more tokens leave parts.
With one token, they include the norm too."""


class FusedDecoder:
    """Runs a loaded `DecoderLM` without the forward methods of its modules.

    Steps of up to `split_rows` tokens use our own matrix products, with the gate fused in, if the model has no biases.
    0 turns them off, and None chooses the number. On one rank, the products at the end of a block leave parts, which
    the norm adds up. For few tokens the residual addition is fused into the product instead: for one token, or with
    large weights for all steps that our own products take. On several ranks, the sum over the ranks comes between
    product and norm.
    """

    def __init__(self, model: DecoderLM, *, split_rows: int | None = None) -> None:
        self.model = model
        attention, mlp = model.layers[0].self_attn, model.layers[0].mlp
        self._shape = QKVShape(attention.num_heads, attention.num_kv_heads, attention.head_size)
        biased = any(layer.bias is not None for _, layer in model.linear_layers())
        self._group = attention.o_proj.group
        most = split.max_rows(mlp.gate_up_proj.weight) if split_rows is None else split_rows
        self._split_rows = 0 if biased else min(most, split.max_rows_of_size(mlp.gate_up_proj.weight))
        self._skinny_rows = min(self._split_rows, skinny.MAX_ROWS)
        self._in_parts = self._split_rows > skinny.MAX_ROWS and self._group.size == 1
        fused_rows = min(self._split_rows, FUSED_ROWS) if self._in_parts else self._split_rows
        self._fused_rows = fused_rows if self._group.size == 1 else 0

    @property
    def step_sizes(self) -> tuple[int, ...]:
        """The number of tokens of the smallest step of each set of kernels."""
        if not self._split_rows:
            return (1,)
        sizes = {1, 2, self._skinny_rows + 1, split.MIN_ROWS + 1, 2 * split.MIN_ROWS + 1, self._split_rows + 1}
        return tuple(sorted(sizes | {split.PARTS_ROWS + 1, split.BATCH_ROWS + 1}))

    def forward(
        self,
        token_ids_T: Tensor,
        position_T: Tensor,
        slot_T: Tensor,
        kv_caches: Sequence[Tensor],
        attend: AttendCached,
    ) -> Tensor:
        """[T] tokens at [T] positions -> [T, D] normalised hidden states. KV goes to slots [T]; -1 is for nowhere."""
        model = self.model
        if self._group.size == 1:
            residual_TD = embed(token_ids_T, model.embed_tokens.weight)
        else:
            residual_TD = model.embed_tokens(token_ids_T).float()
        if len(token_ids_T) <= self._fused_rows:
            for index, layer in enumerate(model.layers):
                self._few_tokens(index, layer, residual_TD, position_T, slot_T, kv_caches[index], attend)
            return rms_norm(residual_TD, model.norm.weight, model.norm.eps)
        ours = len(token_ids_T) <= self._split_rows
        product = skinny_linear if len(token_ids_T) <= self._skinny_rows else split_linear
        added_TD: Tensor | None = None
        for index, layer in enumerate(model.layers):
            attention, mlp = layer.self_attn, layer.mlp
            normed_TD = _add_and_norm(_there(layer.input_layernorm), added_TD, residual_TD)
            qkv_TX = product(normed_TD, attention.qkv_proj.weight) if ours else attention.qkv_proj(normed_TD)
            out_TX = attend(index, self._rotate(layer, qkv_TX, position_T, slot_T, kv_caches[index])).flatten(1)
            added_TD = self._added(attention.o_proj, out_TX)
            normed_TD = _add_and_norm(_there(layer.post_attention_layernorm), added_TD, residual_TD)
            if ours:
                gated_TI = product(normed_TD, mlp.gate_up_proj.weight, gated=True)
            else:
                gated_TI = silu_and_mul(mlp.gate_up_proj(normed_TD))
            added_TD = self._added(mlp.down_proj, gated_TI)
        return _add_and_norm(model.norm, added_TD, residual_TD)

    def compute_logits(self, hidden_RD: Tensor) -> Tensor:
        """[R, D] -> [R, V] float32."""
        head = self.model.lm_head
        if len(hidden_RD) <= self._skinny_rows:
            return head.share_of(skinny_linear(hidden_RD, head.weight, out_dtype=torch.float32))
        return head.share_of(product_in_float32(hidden_RD, head.weight.t()))

    def _added(self, layer: RowParallelLinear, x_TK: Tensor) -> Tensor:
        """What the next norm adds to the residual: [T, D], or parts of it [P, T, D]. On several ranks it is rounded."""
        if self._in_parts:
            return add_product(x_TK, layer.weight)
        if self._group.size == 1:
            added_TD = product_in_float32(x_TK, layer.weight.t())
            return added_TD if layer.bias is None else added_TD.add_(layer.bias)
        if len(x_TK) > self._split_rows:
            return layer(x_TK)
        few = len(x_TK) <= self._skinny_rows
        return self._group.all_reduce((skinny_linear if few else split_linear)(x_TK, layer.weight))

    def _few_tokens(
        self,
        index: int,
        layer: DecoderLayer,
        residual_TD: Tensor,
        position_T: Tensor,
        slot_T: Tensor,
        kv_cache: Tensor,
        attend: AttendCached,
    ) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        norm = _there(layer.input_layernorm)
        qkv_TX = skinny_linear(residual_TD, attention.qkv_proj.weight, norm_K=norm.weight, eps=norm.eps)
        q_TNH = self._rotate(layer, qkv_TX, position_T, slot_T, kv_cache)
        skinny_linear(attend(index, q_TNH).flatten(1), attention.o_proj.weight, add_to_RN=residual_TD)
        norm = _there(layer.post_attention_layernorm)
        gated_TI = skinny_linear(residual_TD, mlp.gate_up_proj.weight, norm_K=norm.weight, eps=norm.eps, gated=True)
        skinny_linear(gated_TI, mlp.down_proj.weight, add_to_RN=residual_TD)

    def _rotate(
        self, layer: DecoderLayer, qkv_TX: Tensor, position_T: Tensor, slot_T: Tensor, kv_cache: Tensor
    ) -> Tensor:
        norm = layer.self_attn.qk_norm
        cos_sin_PH = self.model.rotary.cos_sin_PH
        if norm is None:
            return rotate_and_write(qkv_TX, self._shape, cos_sin_PH, position_T, slot_T, kv_cache)
        return rotate_and_write(qkv_TX, self._shape, cos_sin_PH, position_T, slot_T, kv_cache, norm.weight, norm.eps)


def _there(norm: RMSNorm | None) -> RMSNorm:
    assert norm is not None, "applies.unfused_reason lets no layer pass that has no norm before a block"
    return norm


def _add_and_norm(norm: RMSNorm, added_TD: Tensor | None, residual_TD: Tensor) -> Tensor:
    if added_TD is None:
        return rms_norm(residual_TD, norm.weight, norm.eps)
    return rms_norm(added_TD, norm.weight, norm.eps, residual_TD)
