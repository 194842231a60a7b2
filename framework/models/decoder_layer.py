"""One layer of a decoder, flattened over the tokens of a mixed batch.

Shape letters: T tokens of the step, N query heads, M KV heads, H head size, D model size. N and M are those of this
tensor-parallel rank.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from framework.models.config import ModelConfig
from framework.models.layers.activation import make_gate
from framework.models.layers.linear import MERGED, MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from framework.models.layers.norm import QKNorm, RMSNorm, WideQKNorm
from framework.models.layers.placement import Placement
from framework.models.layers.rotary import Rotation
from framework.models.layers.weight_slot import WeightSlot, linear_slots


class Attention(nn.Module):
    """Grouped-query attention (arXiv 2305.13245), optionally with normalised queries and keys."""

    def __init__(self, config: ModelConfig, index: int, *, place: Placement) -> None:
        super().__init__()
        self.config = config
        self.head_size = config.head_size
        self.qkv_proj = QKVParallelLinear(
            config.hidden_size,
            config.head_size,
            config.num_heads,
            config.num_kv_heads,
            bias=config.qkv_bias,
            place=place,
        )
        self.num_heads, self.num_kv_heads = self.qkv_proj.num_heads, self.qkv_proj.num_kv_heads
        self.o_proj = RowParallelLinear(
            config.num_heads * config.head_size, config.hidden_size, bias=config.output_bias, place=place
        )
        self.qk_norm = self._make_norm(config, place)

    def _make_norm(self, config: ModelConfig, place: Placement) -> QKNorm | WideQKNorm | None:
        shape = (self.num_heads, self.num_kv_heads, config.head_size, config.rms_eps)
        if config.qk_norm == "all":
            return WideQKNorm(*shape, total=(config.num_heads, config.num_kv_heads), place=place)
        return QKNorm(*shape, place=place, offset=float(config.norm_offset)) if config.qk_norm == "head" else None

    def qkv(self, hidden_TD: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, normalised and rotated; not rotated where the layer has no positions."""
        num_heads, num_qk = self.num_heads, self.num_heads + self.num_kv_heads
        qkv_TXH = self.qkv_proj(hidden_TD).view(-1, num_qk + self.num_kv_heads, self.head_size)
        qk_TXH, v_TMH = qkv_TXH[:, :num_qk], qkv_TXH[:, num_qk:]
        if self.qk_norm is not None:
            qk_TXH = self.qk_norm(qk_TXH)
        if rotation is not None:
            qk_TXH = rotation(qk_TXH)
        return qk_TXH[:, :num_heads], qk_TXH[:, num_heads:], v_TMH

    def project(self, out_TNH: Tensor) -> Tensor:
        """[T, N, H] attention outputs -> [T, D]."""
        return self.o_proj(out_TNH.reshape(-1, self.num_heads * self.head_size))

    def slots(self) -> dict[str, WeightSlot]:
        """Name in the checkpoint, below the layer's -> slot."""
        config, slots = self.config, dict[str, WeightSlot]()
        if config.fused_qkv:
            slots |= linear_slots("self_attn.qkv_proj", self.qkv_proj, config.qkv_bias, MERGED)
        else:
            for shard_id in ("q", "k", "v"):
                slots |= linear_slots(f"self_attn.{shard_id}_proj", self.qkv_proj, config.qkv_bias, shard_id)
        if self.qk_norm is not None:
            for shard_id in ("q", "k"):
                slots[f"self_attn.{shard_id}_norm.weight"] = WeightSlot(self.qk_norm, "weight", shard_id)
        return slots | linear_slots("self_attn.o_proj", self.o_proj, config.output_bias)


class MLP(nn.Module):
    """The gated feed-forward block."""

    def __init__(self, config: ModelConfig, *, place: Placement) -> None:
        super().__init__()
        self.config = config
        sizes = (config.intermediate_size, config.intermediate_size)
        self.gate_up_proj = MergedColumnParallelLinear(config.hidden_size, sizes, bias=config.mlp_bias, place=place)
        self.act = make_gate(config.activation)
        self.down_proj = RowParallelLinear(
            config.intermediate_size, config.hidden_size, bias=config.mlp_bias, place=place
        )

    def forward(self, hidden_TD: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_up_proj(hidden_TD)))

    def slots(self) -> dict[str, WeightSlot]:
        """Name in the checkpoint, below the layer's -> slot."""
        bias = self.config.mlp_bias
        if self.config.fused_gate_up:
            slots = linear_slots("mlp.gate_up_proj", self.gate_up_proj, bias, MERGED)
        else:
            slots = linear_slots("mlp.gate_proj", self.gate_up_proj, bias, 0)
            slots |= linear_slots("mlp.up_proj", self.gate_up_proj, bias, 1)
        return slots | linear_slots("mlp.down_proj", self.down_proj, bias)


class DecoderLayer(nn.Module):
    """Attention and feed-forward, with a norm wherever `ModelConfig.norms` has one.

    What the feed-forward block puts out is added to the residual stream by the next layer, since adding and
    normalising are one operation there.
    """

    def __init__(self, config: ModelConfig, attention: nn.Module, mlp: nn.Module, *, place: Placement) -> None:
        super().__init__()
        norms = config.norms
        self._names = {
            "input_layernorm": norms.before_attention,
            "attention_out_norm": norms.after_attention,
            "post_attention_layernorm": norms.before_mlp,
            "mlp_out_norm": norms.after_mlp,
        }
        offset = float(config.norm_offset)
        for attribute, name in self._names.items():
            norm = None if name is None else RMSNorm(config.hidden_size, config.rms_eps, place=place, offset=offset)
            setattr(self, attribute, norm)
        self.self_attn = cast(Attention, attention)  # or a family's own module with its methods
        self.mlp = cast(MLP, mlp)
        self._scale = config.residual_scale

    input_layernorm: RMSNorm | None
    attention_out_norm: RMSNorm | None
    post_attention_layernorm: RMSNorm | None
    mlp_out_norm: RMSNorm | None

    def before_attention(
        self, hidden_TD: Tensor | None, residual_TD: Tensor, rotation: Rotation | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add `hidden`, what the layer before put out, to the residual stream in place; then q, k and v."""
        return self.self_attn.qkv(_add_and_norm(self.input_layernorm, hidden_TD, residual_TD), rotation)

    def after_attention(self, out_TNH: Tensor, residual_TD: Tensor) -> Tensor:
        """Project, add to the residual stream in place, and run the feed-forward block."""
        projected_TD = self._ended(self.attention_out_norm, self.self_attn.project(out_TNH))
        normed_TD = _add_and_norm(self.post_attention_layernorm, projected_TD, residual_TD)
        return self._ended(self.mlp_out_norm, self.mlp(normed_TD))

    def _ended(self, norm: RMSNorm | None, hidden_TD: Tensor) -> Tensor:
        if norm is not None:
            hidden_TD = norm(hidden_TD)
        return hidden_TD if self._scale == 1.0 else hidden_TD * self._scale

    def slots(self) -> dict[str, WeightSlot]:
        """Name in the checkpoint, below the layer's -> slot, in file order."""

        def norm(attribute: str) -> dict[str, WeightSlot]:
            name = self._names[attribute]
            return {} if name is None else {f"{name}.weight": WeightSlot(getattr(self, attribute), "weight")}

        slots = norm("input_layernorm") | self.self_attn.slots() | norm("attention_out_norm")
        return slots | norm("post_attention_layernorm") | self.mlp.slots() | norm("mlp_out_norm")


def _add_and_norm(norm: RMSNorm | None, hidden_TD: Tensor | None, residual_TD: Tensor) -> Tensor:
    """Add `hidden` to the residual stream in place, and return the stream, normalised where there is a norm."""
    if norm is None:
        return residual_TD if hidden_TD is None else residual_TD.add_(hidden_TD)
    return norm(residual_TD) if hidden_TD is None else norm.add_and_norm(hidden_TD, residual_TD)
