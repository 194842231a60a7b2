"""The rows of decode steps, resident on the device: which slots run, and at which positions.

The step itself moves positions on (`feed_back`), so in steady decode the host sends nothing. Shape letters: R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from framework.execution.step.device_state import DeviceState
from framework.interfaces.attention import BatchLayout
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import GraphKey


@dataclass(slots=True)
class CapturedRows:
    """The inputs of a captured step. In steps of decode rows, all R rows are sampled (P = R)."""

    token_ids_T: Tensor
    layout: BatchLayout
    slot_P: Tensor
    position_P: Tensor
    """[P] int64: the position of each row's last token. The step moves it on."""
    last_P: Tensor | None
    """[P] int64: the index of each row's last token in the step. None if each row has one token."""


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

    def load(self, batch: StepBatch, key: GraphKey) -> bool:
        """Make the first `key.num_rows` rows those of `batch`. False if they are so already."""
        num_padded = key.num_rows
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

    def gather(self, key: GraphKey) -> CapturedRows:
        """Prepare all that a step needs, by device work alone."""
        from framework.execution.kernels.cuda.decode_step import decode_inputs

        state, num_rows = self._state, key.num_rows
        slot_R, position_R, token_R = self.slot_R[:num_rows], self.position_R[:num_rows], self.token_R[:num_rows]
        layout = BatchLayout(
            num_rows=num_rows,
            num_tokens=num_rows,
            num_decode_rows=num_rows,
            query_start_R1=self.query_start_R1[: num_rows + 1],
            seq_lens_R=self.seq_lens_R[:num_rows],
            block_table_RB=self.block_table_RB[:num_rows],
            slot_mapping_T=self.slot_mapping_R[:num_rows],
            positions_T=position_R,
            query_start_host=[],
            seq_lens_host=[],
        )
        decode_inputs(
            slot_R,
            position_R,
            state.token_ids_SL,
            state.block_table_SB,
            state.block_size,
            state.num_slots,
            token_R=token_R,
            seq_lens_R=layout.seq_lens_R,
            slot_mapping_R=layout.slot_mapping_T,
            block_table_RB=layout.block_table_RB,
        )
        return CapturedRows(token_ids_T=token_R, layout=layout, slot_P=slot_R, position_P=position_R, last_P=None)

    def invalidate(self) -> None:
        """Load the rows again at the next step, since a slot may belong to another request."""
        self._num_padded = 0

    def clear(self) -> None:
        """Make every row padding, so that a capture's rehearsal changes nothing."""
        self.slot_R.fill_(self._state.num_slots)
        self.position_R.zero_()
        self._slots, self._num_padded = [], 0
