"""Seeded random weights, for shapes without files."""

from __future__ import annotations

import hashlib

import torch

from framework.models.decoder import DecoderLM
from framework.models.weight_slots import weight_slots


def fill_random(model: DecoderLM, seed: int) -> None:
    """Fill every parameter: norms so that they multiply by 1, the rest from N(0, `initializer_range`).

    A tensor depends on (seed, its checkpoint name, its unsplit shape) and the kind of device only, so every
    tensor-parallel size and dtype gets the same model. Drawn in fp32 on the model's device.
    """
    device = model.norm.weight.device
    for name, slot in weight_slots(model).items():
        if name.endswith("norm.weight"):
            slot.load(torch.full(slot.full_shape, 1.0 - getattr(slot.layer, "offset", 0.0), device=device))
            continue
        digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
        generator = torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
        values = torch.empty(slot.full_shape, device=device, dtype=torch.float32)
        slot.load(values.normal_(0.0, model.config.initializer_range, generator=generator))
