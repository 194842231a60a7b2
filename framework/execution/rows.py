"""The rows of decode steps, resident on the device: which slots run, and at which positions.

The step itself moves positions on (`feed_back`), so in steady decode the host sends nothing. Shape letters: R rows.
"""

from __future__ import annotations

import numpy as np
import torch

from framework.execution.device_state import DeviceState
from framework.execution.executor import StepBatch


class ResidentRows:
    """Buffers that captured graphs read and write; padding rows have slot `state.num_slots` and position 0."""

    def __init__(self, state: DeviceState, max_rows: int) -> None:
        self._state = state
        device = state.device
        self.slot_R = torch.full((max_rows,), state.num_slots, dtype=torch.int64, device=device)
        self.position_R = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.token_R = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.seq_lens_R = torch.zeros(max_rows, dtype=torch.int32, device=device)
        self.slot_mapping_R = torch.full((max_rows,), -1, dtype=torch.int64, device=device)
        self.query_start_R1 = torch.arange(max_rows + 1, dtype=torch.int32, device=device)
        self.block_table_RB = torch.zeros(max_rows, state.block_table_SB.shape[1], dtype=torch.int32, device=device)
        self._slots: list[int] = []
        self._next = np.zeros(0, dtype=np.int64)
        self._num_padded = 0

    def load(self, batch: StepBatch, num_padded: int) -> bool:
        """Make the first `num_padded` rows those of `batch`; False if they are so already."""
        starts = np.array(batch.starts)
        resident = num_padded == self._num_padded and batch.slots == self._slots
        if resident and np.array_equal(starts, self._next):
            self._next += 1
            return False
        num_rows = len(starts)
        slots = np.full(num_padded, self._state.num_slots, dtype=np.int64)
        slots[:num_rows] = batch.slots
        positions = np.zeros(num_padded, dtype=np.int64)
        positions[:num_rows] = starts
        slot_R, position_R = self._state.staging.send([slots, positions])
        self.slot_R[:num_padded].copy_(slot_R)
        self.position_R[:num_padded].copy_(position_R)
        self._slots, self._next, self._num_padded = list(batch.slots), starts + 1, num_padded
        return True

    def invalidate(self) -> None:
        """Load again whatever comes next: a slot may be another request's."""
        self._num_padded = 0

    def clear(self) -> None:
        """Make every row padding, so that a capture's rehearsal changes nothing."""
        self.slot_R.fill_(self._state.num_slots)
        self.position_R.zero_()
        self._slots, self._num_padded = [], 0
