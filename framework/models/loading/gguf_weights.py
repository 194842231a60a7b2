"""Fills a model from a GGUF file.

Matrices stay in the file's blocks where kernels read these. Other tensors are dequantised on their way into the model,
every time: that takes about as long as reading a converted copy from a disk, is exact in every dtype, and leaves
nothing behind. A copy would take up to eight times the file's size.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from framework.models.decoder import DecoderLM
from framework.models.layers.block_layer import LayerOfBlocks
from framework.models.layers.quantized import FORMATS, QuantizedRows
from framework.models.layers.weight_slot import WeightSlot
from framework.models.loading.finite import check_finite
from framework.models.loading.gguf_file import GGUFFile, open_gguf
from framework.models.weight_slots import weight_slots


def fill_from_gguf(model: DecoderLM, path: Path, *, keep_blocks: bool) -> dict[str, int]:
    """Give each parameter this rank's slice of its tensor.

    Args:
        keep_blocks: leave the matrices of a layer in their blocks if all of them are of `FORMATS` and this rank's share
            begins and ends between blocks; see `LayerOfBlocks`.

    Returns:
        How many matrices are of which form, for the record: `Q4_1` as they are in the file, or `Q4_1, dequantised`.

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
    kept = _keep_blocks(model, slots, file, names) if keep_blocks else set()
    forms = Counter[str]()
    for name, slot in slots.items():
        if name not in kept:
            slot.load(torch.from_numpy(file.read(names[name])))
        if slot.param_name == "weight" and isinstance(slot.layer, LayerOfBlocks):
            forms[file.kind_name(names[name]) + ("" if name in kept else ", dequantised")] += 1
    check_finite(model, slots, lambda name: torch.from_numpy(file.read(names[name])), str(path))
    return dict(forms)


def _keep_blocks(model: DecoderLM, slots: dict[str, WeightSlot], file: GGUFFile, names: dict[str, str]) -> set[str]:
    """Leave in blocks what can stay so, and say which tensors these are."""
    members: dict[LayerOfBlocks, list[str]] = {}
    for name, slot in slots.items():
        if slot.param_name == "weight" and isinstance(slot.layer, LayerOfBlocks):
            members.setdefault(slot.layer, []).append(name)
    kept = set[str]()
    for layer, tensors in members.items():
        if not all(file.tensors[names[name]].kind in FORMATS for name in tensors):
            continue
        pieces: list[QuantizedRows] = []
        for name in tensors:
            blocks = file.blocks(names[name])
            share = None if blocks is None else layer.share_of_blocks(blocks, slots[name].shard_id)
            if share is None:
                break
            if not share.scales_are_finite():
                raise ValueError(
                    f"{file.path}: tensor {names[name]} holds a scale that is NaN or infinite; the checkpoint is "
                    f"damaged: download or convert it again"
                )
            pieces.append(share)
        if len(pieces) == len(tensors):
            layer.keep_blocks(tuple(pieces))
            kept.update(tensors)
    if model.config.tie_embeddings and model.embed_tokens.pieces:
        model.lm_head.keep_blocks(model.embed_tokens.pieces)
    return kept


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
