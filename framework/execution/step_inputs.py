"""What a step of any kind needs on the device, computed on the host and sent in one copy.

Shape letters: T tokens of the step, R rows, P sampled rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from framework.execution.device_state import DeviceState
from framework.execution.executor import StepBatch
from framework.interfaces.attention import BatchLayout


@dataclass(slots=True)
class StepInputs:
    """Tokens to embed, where they lie, and which rows are sampled."""

    token_ids_T: Tensor
    layout: BatchLayout
    sampled_slots: list[int]
    slot_P: Tensor
    position_P: Tensor
    """[P] int64, the position that the sampled token will have"""
    last_P: Tensor
    """[P] int64, the sampled rows' last tokens among the step's"""
    max_position: int
    """The highest of `position_P`; 0 without sampled rows"""

    @classmethod
    def of(cls, batch: StepBatch, state: DeviceState) -> StepInputs:
        """Send `batch`; `state` has taken over its admissions and blocks."""
        counts, starts, slots = np.array(batch.row_tokens), np.array(batch.starts), np.array(batch.slots)
        query_start = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=query_start[1:])
        positions = np.arange(batch.num_tokens) + np.repeat(starts - query_start[:-1], counts)
        seq_lens = starts + counts
        sampled = np.flatnonzero(batch.samples)
        sampled_slots, sampled_positions = slots[sampled], seq_lens[sampled]
        sent = state.staging.send(
            [
                query_start,
                seq_lens,
                slots,
                np.repeat(slots, counts),
                positions,
                sampled_slots,
                sampled_positions,
                query_start[sampled + 1] - 1,
            ]
        )
        query_start_R1, seq_lens_R, slot_R, slot_T, positions_T, slot_P, position_P, last_P = sent
        table, block_size = state.block_table_SB, state.block_size
        num_columns = -(-int(seq_lens.max()) // block_size)
        block_T = table[slot_T, positions_T // block_size].long()
        layout = BatchLayout(
            num_rows=len(counts),
            num_tokens=batch.num_tokens,
            num_decode_rows=batch.num_decode_rows,
            query_start_R1=query_start_R1.int(),
            seq_lens_R=seq_lens_R.int(),
            block_table_RB=table[slot_R, :num_columns],
            slot_mapping_T=block_T * block_size + positions_T % block_size,
            positions_T=positions_T,
            query_start_host=query_start.tolist(),
            seq_lens_host=seq_lens.tolist(),
        )
        return cls(
            token_ids_T=state.token_ids_SL[slot_T, positions_T],
            layout=layout,
            sampled_slots=sampled_slots.tolist(),
            slot_P=slot_P,
            position_P=position_P,
            last_P=last_P,
            max_position=int(sampled_positions.max()) if len(sampled) else 0,
        )
