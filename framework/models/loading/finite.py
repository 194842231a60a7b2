"""Weights that are NaN or infinite, named when they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from framework.models.decoder import DecoderLM
from framework.models.layers.weight_slot import WeightSlot


def check_finite(model: DecoderLM, slots: Mapping[str, WeightSlot], read: Callable[[str], Tensor], where: str) -> None:
    """Refuse weights that hold a NaN or an infinity, in the files or in the dtype that the model runs in.

    One sum over each parameter, read at the speed of memory, and one transfer from the device for all of them.

    Args:
        read: the tensor that a slot's name stands for, from its file; called only after something was found.
        where: the checkpoint, for the message.

    Raises:
        ValueError: naming the first such tensor, and a remedy.
    """
    parameters = [parameter for parameter in model.parameters() if not parameter.is_meta]  # those are in blocks
    sums = torch.stack([parameter.detach().sum(dtype=torch.float32) for parameter in parameters])
    suspects = (parameters[i] for i in torch.nonzero(~torch.isfinite(sums)).flatten().tolist())
    bad = {id(parameter) for parameter in suspects if not _is_finite(parameter)}  # a sum of large numbers overflows too
    if not bad:
        return
    dtype = str(model.norm.weight.dtype).removeprefix("torch.")
    for name, slot in slots.items():
        if id(getattr(slot.layer, slot.param_name)) not in bad:
            continue
        values = read(name)
        if not _is_finite(values):
            raise ValueError(
                f"{where}: tensor {name} holds {_kind(values)}; the checkpoint is damaged: download or convert it again"
            )
        if not _is_finite(values.to(model.norm.weight.dtype)):
            raise ValueError(
                f"{where}: tensor {name} holds numbers up to {float(values.abs().max()):.3g}, which {dtype} has no "
                f"room for; set executor.dtype=bfloat16 or float32"
            )
    raise AssertionError("a parameter is not finite, but all tensors that fill it are")


def _is_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _kind(values: Tensor) -> str:
    return "NaN" if bool(torch.isnan(values).any()) else "an infinity"
