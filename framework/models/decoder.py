"""The dense decoder of the Llama, Mistral, Qwen2 and Qwen3 families, flattened over the tokens of a mixed batch.

Shape letters: T tokens of the step, R rows whose logits are wanted, N query heads, M KV heads, H head size, D model
size, V vocabulary. N and M are those of this tensor-parallel rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from framework.models.config import ModelConfig
from framework.models.layers.activation import SiluAndMul
from framework.models.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from framework.models.layers.group import TensorParallelGroup
from framework.models.layers.linear import LinearLayer, MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from framework.models.layers.norm import QKNorm, RMSNorm
from framework.models.layers.placement import Placement
from framework.models.layers.rotary import RotaryEmbedding

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""`attend(layer, q_TNH, k_TMH, v_TMH) -> [T, N, H]`, given by the runner; writes the KV cache. The inputs may be views
of one buffer: only their last dimension is contiguous."""


class Attention(nn.Module):
    """Grouped-query attention (arXiv 2305.13245), optionally with normalised queries and keys."""

    def __init__(self, config: ModelConfig, layer: int, *, place: Placement) -> None:
        super().__init__()
        self.layer = layer
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
        self.qk_norm = (
            QKNorm(self.num_heads, self.num_kv_heads, config.head_size, config.rms_eps, place=place)
            if config.qk_norm
            else None
        )

    def qkv(
        self, hidden_TD: Tensor, rotary: RotaryEmbedding, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, normalised and rotated."""
        num_heads, num_qk = self.num_heads, self.num_heads + self.num_kv_heads
        qkv_TXH = self.qkv_proj(hidden_TD).view(-1, num_qk + self.num_kv_heads, self.head_size)
        qk_TXH, v_TMH = qkv_TXH[:, :num_qk], qkv_TXH[:, num_qk:]
        if self.qk_norm is not None:
            qk_TXH = self.qk_norm(qk_TXH)
        qk_TXH = rotary.rotate(qk_TXH, cos, sin)
        return qk_TXH[:, :num_heads], qk_TXH[:, num_heads:], v_TMH

    def project(self, out_TNH: Tensor) -> Tensor:
        """[T, N, H] attention outputs -> [T, D]."""
        return self.o_proj(out_TNH.reshape(-1, self.num_heads * self.head_size))


class MLP(nn.Module):
    """The gated feed-forward block."""

    def __init__(self, config: ModelConfig, *, place: Placement) -> None:
        super().__init__()
        sizes = (config.intermediate_size, config.intermediate_size)
        self.gate_up_proj = MergedColumnParallelLinear(config.hidden_size, sizes, bias=config.mlp_bias, place=place)
        self.act = SiluAndMul()
        self.down_proj = RowParallelLinear(
            config.intermediate_size, config.hidden_size, bias=config.mlp_bias, place=place
        )

    def forward(self, hidden_TD: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_up_proj(hidden_TD)))


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each after a norm that also adds the block before it to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int, *, place: Placement) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_eps, place=place)
        self.self_attn = Attention(config, layer, place=place)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_eps, place=place)
        self.mlp = MLP(config, place=place)

    def before_attention(
        self, hidden_TD: Tensor | None, residual_TD: Tensor, rotary: RotaryEmbedding, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add `hidden`, what the layer before put out, to the residual stream in place; then q, k and v."""
        norm = self.input_layernorm
        normed_TD = norm(residual_TD) if hidden_TD is None else norm.add_and_norm(hidden_TD, residual_TD)
        return self.self_attn.qkv(normed_TD, rotary, cos, sin)

    def after_attention(self, out_TNH: Tensor, residual_TD: Tensor) -> Tensor:
        """Project, add to the residual stream in place, and run the feed-forward block."""
        projected_TD = self.self_attn.project(out_TNH)
        return self.mlp(self.post_attention_layernorm.add_and_norm(projected_TD, residual_TD))


class DecoderLM(nn.Module):
    """A causal language model. Parameters are uninitialised until a loader fills the slots of `weight_slots`."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        device: torch.device,
        dtype: torch.dtype,
        group: TensorParallelGroup | None = None,
        max_model_len: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.max_model_len = max_model_len or config.max_model_len
        place = Placement(device, dtype, group or TensorParallelGroup())
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size, place=place)
        layers = nn.ModuleList(DecoderLayer(config, layer, place=place) for layer in range(config.num_layers))
        self.layers = cast(list[DecoderLayer], layers)  # so that a type checker knows what is in it
        self.norm = RMSNorm(config.hidden_size, config.rms_eps, place=place)
        tied_to = self.embed_tokens if config.tie_embeddings else None
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size, place=place, tied_to=tied_to)
        self.rotary = RotaryEmbedding(config.rope, config.head_size, self.max_model_len, place=place)

    @property
    def num_heads(self) -> int:
        """The number of query heads of this rank."""
        return self.layers[0].self_attn.num_heads

    @property
    def num_kv_heads(self) -> int:
        """The number of KV heads of this rank."""
        return self.layers[0].self_attn.num_kv_heads

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor:
        """[T] tokens at [T] positions below `max_model_len` -> [T, D] hidden states, normalised."""
        cos, sin = self.rotary.angles(positions_T)
        residual_TD = self.embed_tokens(token_ids_T)
        hidden_TD: Tensor | None = None
        for index, layer in enumerate(self.layers):
            q_TNH, k_TMH, v_TMH = layer.before_attention(hidden_TD, residual_TD, self.rotary, cos, sin)
            hidden_TD = layer.after_attention(attend(index, q_TNH, k_TMH, v_TMH), residual_TD)
        assert hidden_TD is not None
        return self.norm.add_and_norm(hidden_TD, residual_TD)

    def compute_logits(self, hidden_RD: Tensor) -> Tensor:
        """[R, D] -> [R, V] float32 over the full vocabulary, on every rank."""
        return self.lm_head(hidden_RD).float()

    def finalize(self) -> None:
        """Prepare the layers. Call it once, when all weights are loaded."""
        for _, layer in self.linear_layers():
            layer.finalize()

    def linear_layers(self) -> Iterator[tuple[str, LinearLayer]]:
        """Name and layer of every weight matrix product, the LM head last; set `layer.kernel` to replace one."""
        for name, module in self.named_modules():
            if isinstance(module, LinearLayer):
                yield name, module
