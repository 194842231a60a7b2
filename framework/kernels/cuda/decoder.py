"""A decoder's forward pass from fused kernels: nine a layer for many tokens, six for a few."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from framework.kernels.cuda.activation import silu_and_mul
from framework.kernels.cuda.norm import rms_norm
from framework.kernels.cuda.qkv import QKVShape, rotate_and_write
from framework.kernels.cuda.skinny import MAX_ROWS, skinny_linear
from framework.layers.linear import LinearLayer
from framework.models.decoder import DecoderLayer, DecoderLM

AttendCached = Callable[[int, Tensor], Tensor]
"""`attend(layer, q_TNH) -> [T, N, H]`, after the step's keys and values were written to the cache."""


class FusedDecoder:
    """Runs a loaded `DecoderLM` without its modules' forward methods.

    Up to `skinny_rows` tokens the matrix products of a model without biases are our own, with norm, gate and residual
    addition fused in; 0 turns them off. On several ranks the sum over them stands between product and addition, so
    only the gate is fused.
    """

    def __init__(self, model: DecoderLM, *, skinny_rows: int = MAX_ROWS) -> None:
        self.model = model
        attention = model.layers[0].self_attn
        self._shape = QKVShape(attention.num_heads, attention.num_kv_heads, attention.head_size)
        biased = any(layer.bias is not None for _, layer in model.linear_layers())
        self._group = attention.o_proj.group
        self._skinny_rows = 0 if biased else min(skinny_rows, MAX_ROWS)

    def forward(
        self,
        token_ids_T: Tensor,
        position_T: Tensor,
        slot_T: Tensor,
        kv_caches: Sequence[Tensor],
        attend: AttendCached,
    ) -> Tensor:
        """[T] tokens at [T] positions -> [T, D] hidden states, normalised; KV goes to slots [T], -1 for nowhere."""
        model = self.model
        residual_TD = model.embed_tokens(token_ids_T)
        few = len(token_ids_T) <= self._skinny_rows
        if few and self._group.size == 1:
            for index, layer in enumerate(model.layers):
                self._few_tokens(index, layer, residual_TD, position_T, slot_T, kv_caches[index], attend)
            return rms_norm(residual_TD, model.norm.weight, model.norm.eps)
        added_TD: Tensor | None = None
        for index, layer in enumerate(model.layers):
            norm, attention, mlp = layer.input_layernorm, layer.self_attn, layer.mlp
            if added_TD is None:
                normed_TD = rms_norm(residual_TD, norm.weight, norm.eps)
            else:
                normed_TD = rms_norm(added_TD, norm.weight, norm.eps, residual_TD)
            q_TNH = self._rotate(
                layer, _product(attention.qkv_proj, normed_TD, few), position_T, slot_T, kv_caches[index]
            )
            added_TD = self._group.all_reduce(_product(attention.o_proj, attend(index, q_TNH).flatten(1), few))
            norm = layer.post_attention_layernorm
            normed_TD = rms_norm(added_TD, norm.weight, norm.eps, residual_TD)
            if few:
                gated_TI = skinny_linear(normed_TD, mlp.gate_up_proj.weight, gated=True)
            else:
                gated_TI = silu_and_mul(mlp.gate_up_proj(normed_TD))
            added_TD = self._group.all_reduce(_product(mlp.down_proj, gated_TI, few))
        assert added_TD is not None
        return rms_norm(added_TD, model.norm.weight, model.norm.eps, residual_TD)

    def compute_logits(self, hidden_RD: Tensor) -> Tensor:
        """[R, D] -> [R, V] in the model's dtype."""
        head = self.model.lm_head
        few = len(hidden_RD) <= self._skinny_rows
        return head.share_of(skinny_linear(hidden_RD, head.weight) if few else F.linear(hidden_RD, head.weight))

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
        norm = layer.input_layernorm
        qkv_TX = skinny_linear(residual_TD, attention.qkv_proj.weight, norm_K=norm.weight, eps=norm.eps)
        q_TNH = self._rotate(layer, qkv_TX, position_T, slot_T, kv_cache)
        skinny_linear(attend(index, q_TNH).flatten(1), attention.o_proj.weight, add_to_RN=residual_TD)
        norm = layer.post_attention_layernorm
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


def _product(layer: LinearLayer, x_TK: Tensor, few: bool) -> Tensor:
    """Without the sum over ranks."""
    return skinny_linear(x_TK, layer.weight) if few else layer.apply_linear(x_TK)
