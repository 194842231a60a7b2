"""Fills a model from a GGUF file.

Tensors are dequantised on their way into the model, every time: that takes about as long as reading a converted copy
from a disk, is exact in every dtype, and leaves nothing behind. A copy would take up to eight times the file's size.
"""

from __future__ import annotations

from pathlib import Path

import torch

from framework.models.decoder import DecoderLM
from framework.models.loading.finite import check_finite
from framework.models.loading.gguf_file import open_gguf
from framework.models.weight_slots import weight_slots


def fill_from_gguf(model: DecoderLM, path: Path) -> None:
    """Dequantise each tensor and copy this rank's slice of it into its parameter.

    Raises:
        ValueError: naming file and tensor, for one that is missing, unexpected, of the wrong shape, beyond the file's
            end, of a type that can't be dequantised, or not finite.
    """
    file = open_gguf(path)
    slots = weight_slots(model)
    names = file.hf_names()
    if missing := [name for name in slots if name not in names]:
        raise ValueError(f"{path}: tensor {missing[0]} is missing{_and_more(missing)}")
    if unexpected := [names[name] for name in names if name not in slots]:
        raise ValueError(f"{path}: tensor {unexpected[0]} doesn't belong to this model{_and_more(unexpected)}")
    for name, slot in slots.items():
        if (shape := file.tensors[names[name]].shape) != slot.full_shape:
            raise ValueError(
                f"{path}: tensor {names[name]} has shape {list(shape)}, but the metadata asks for "
                f"{list(slot.full_shape)}"
            )
        slot.load(torch.from_numpy(file.read(names[name])))
    check_finite(model, slots, lambda name: torch.from_numpy(file.read(names[name])), str(path))


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
