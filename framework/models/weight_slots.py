"""Which tensors a Hugging Face checkpoint of a decoder holds, and the layer that each belongs to."""

from __future__ import annotations

from framework.models.decoder import DecoderLM
from framework.models.layers.linear import LinearLayer
from framework.models.layers.weight_slot import ShardId, WeightSlot


def weight_slots(model: DecoderLM) -> dict[str, WeightSlot]:
    """Checkpoint name -> slot, in file order. All of them must be filled, and nothing else exists."""
    slots = {"model.embed_tokens.weight": WeightSlot(model.embed_tokens, "weight")}
    config = model.config

    def add_linear(name: str, layer: LinearLayer, has_bias: bool, shard_id: ShardId = None) -> None:
        slots[f"{name}.weight"] = WeightSlot(layer, "weight", shard_id)
        if has_bias:  # not `layer.bias is not None`: only rank 0 of a row-parallel layer holds its bias
            slots[f"{name}.bias"] = WeightSlot(layer, "bias", shard_id)

    for index, layer in enumerate(model.layers):
        prefix = f"model.layers.{index}"
        attention, mlp = layer.self_attn, layer.mlp
        slots[f"{prefix}.input_layernorm.weight"] = WeightSlot(layer.input_layernorm, "weight")
        for shard_id in ("q", "k", "v"):
            add_linear(f"{prefix}.self_attn.{shard_id}_proj", attention.qkv_proj, config.qkv_bias, shard_id)
        if attention.qk_norm is not None:
            for shard_id in ("q", "k"):
                slots[f"{prefix}.self_attn.{shard_id}_norm.weight"] = WeightSlot(attention.qk_norm, "weight", shard_id)
        add_linear(f"{prefix}.self_attn.o_proj", attention.o_proj, config.output_bias)
        slots[f"{prefix}.post_attention_layernorm.weight"] = WeightSlot(layer.post_attention_layernorm, "weight")
        add_linear(f"{prefix}.mlp.gate_proj", mlp.gate_up_proj, config.mlp_bias, 0)
        add_linear(f"{prefix}.mlp.up_proj", mlp.gate_up_proj, config.mlp_bias, 1)
        add_linear(f"{prefix}.mlp.down_proj", mlp.down_proj, config.mlp_bias)
    slots["model.norm.weight"] = WeightSlot(model.norm, "weight")
    if not config.tie_embeddings:
        add_linear("lm_head", model.lm_head, False)
    return slots
