"""Which tensors a Hugging Face checkpoint of a decoder holds, and the layer that each belongs to."""

from __future__ import annotations

from framework.models.decoder import DecoderLM
from framework.models.layers.weight_slot import WeightSlot


def weight_slots(model: DecoderLM) -> dict[str, WeightSlot]:
    """Checkpoint name -> slot, in file order. All of them must be filled, and nothing else exists."""
    slots = {"model.embed_tokens.weight": WeightSlot(model.embed_tokens, "weight")}
    for index, layer in enumerate(model.layers):
        slots |= {f"model.layers.{index}.{name}": slot for name, slot in layer.slots().items()}
    slots["model.norm.weight"] = WeightSlot(model.norm, "weight")
    if not model.config.tie_embeddings:
        slots["lm_head.weight"] = WeightSlot(model.lm_head, "weight")
    return slots
