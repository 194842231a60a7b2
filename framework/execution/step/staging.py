"""Host to device without waiting: the numbers of a step go in one copy from pinned memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_NUM_BUFFERS = 4
"""With two steps in flight and two sends per step, a buffer is free again before it is used again."""
_BUFFER_NUMBERS = 1 << 16
"""Three numbers per token of a large prefill step. Pinned memory that grows during a run stops the device."""
_ALIGN = 2
"""Every tensor begins at a multiple of 16 bytes, because Triton compiles a kernel again for any other pointer."""


class Staging:
    """Sends arrays of int64 to `device`. On a CPU the arrays themselves become tensors."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: list[Tensor] = []
        self._events: list[torch.cuda.Event] = []
        self._turn = 0
        if device.type == "cuda":
            self._buffers = [
                torch.empty(_BUFFER_NUMBERS, dtype=torch.int64, pin_memory=True) for _ in range(_NUM_BUFFERS)
            ]
            self._events = [torch.cuda.Event() for _ in range(_NUM_BUFFERS)]

    def send(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        """A tensor for each array, valid from now on in the order of the current stream."""
        if not self._buffers:
            return [torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)) for array in arrays]
        ends = np.cumsum([-(-len(array) // _ALIGN) * _ALIGN for array in arrays]).tolist()
        begins, total = [0, *ends[:-1]], ends[-1]
        self._turn = (self._turn + 1) % _NUM_BUFFERS
        self._events[self._turn].synchronize()  # its last copy, two steps ago
        if len(self._buffers[self._turn]) < total:
            self._buffers[self._turn] = torch.empty(2 * total, dtype=torch.int64, pin_memory=True)
        pinned = self._buffers[self._turn][:total]
        values = pinned.numpy()
        for begin, array in zip(begins, arrays, strict=True):
            values[begin : begin + len(array)] = array
        sent = pinned.to(self._device, non_blocking=True)
        self._events[self._turn].record()
        return [sent[begin : begin + len(array)] for begin, array in zip(begins, arrays, strict=True)]
