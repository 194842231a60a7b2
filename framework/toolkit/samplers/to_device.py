"""Numbers of a batch's rows on the device, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

_ALIGN = 4
"""Each column begins at a multiple of 16 bytes: Triton compiles a kernel again for a pointer that does not."""


def columns(values: Sequence[Sequence[float]] | np.ndarray, device: torch.device, out: Tensor | None = None) -> Tensor:
    """[C, R] float32 of C columns with a number per row, each contiguous and aligned.

    Args:
        out: an earlier result of the same shape, to be overwritten and returned.
    """
    import numpy as np

    array = np.asarray(values, dtype=np.float32)
    num_rows = array.shape[1]
    padded = np.zeros((len(array), num_rows + -num_rows % _ALIGN), dtype=np.float32)
    padded[:, :num_rows] = array
    return sent(padded, device, out=out)[:, :num_rows]


def sent(array: np.ndarray, device: torch.device, *, out: Tensor | None = None) -> Tensor:
    """`array` on the device; on a GPU from pinned memory, in the order of the current stream.

    Args:
        out: memory of the same number of dimensions, whose first rows and columns are overwritten; then the result.
    """
    import torch

    host = torch.from_numpy(array)
    if device.type == "cuda":
        host = host.pin_memory()
    moved = host.to(device, non_blocking=True)  # whole: a part of pinned memory would be copied, and waited for
    if out is None:
        return moved
    common = tuple(slice(min(sizes)) for sizes in zip(out.shape, moved.shape, strict=True))
    out[common].copy_(moved[common])
    return out
