"""What a step of any kind needs on the device, computed on the host and sent in one copy.

Shape letters: T tokens of the step, R rows, P sampled rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from framework.execution.step.device_state import DeviceState
from framework.interfaces.attention import BatchLayout
from framework.interfaces.executor import StepBatch


@dataclass(slots=True)
class HostRows:
    """The numbers of a batch, on the host."""

    query_start: np.ndarray
    """[R+1]: where the tokens of each row begin."""
    seq_lens: np.ndarray
    """[R]: the length of each row, including the tokens of this step."""
    slots: np.ndarray
    """[R]: the slot of each row."""
    token_slots: np.ndarray
    """[T]: the slot of each token."""
    positions: np.ndarray
    """[T]: the position of each token."""
    sampled: np.ndarray
    """[P]: the rows that are sampled."""

    @classmethod
    def of(cls, batch: StepBatch) -> HostRows:
        counts, starts, slots = (np.array(x, dtype=np.int64) for x in (batch.row_tokens, batch.starts, batch.slots))
        query_start = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=query_start[1:])
        positions = np.arange(batch.num_tokens) + np.repeat(starts - query_start[:-1], counts)
        return cls(
            query_start=query_start,
            seq_lens=starts + counts,
            slots=slots,
            token_slots=np.repeat(slots, counts),
            positions=positions,
            sampled=np.flatnonzero(batch.samples),
        )


@dataclass(slots=True)
class StepInputs:
    """The tokens to embed, where they lie, and which rows are sampled."""

    token_ids_T: Tensor
    layout: BatchLayout
    sampled_slots: list[int]
    slot_P: Tensor
    position_P: Tensor
    """[P] int64: the position that the sampled token will have."""
    last_P: Tensor
    """[P] int64: the index of each sampled row's last token in the step."""
    max_position: int
    """The highest of `position_P`; 0 without sampled rows."""

    @classmethod
    def of(cls, batch: StepBatch, state: DeviceState) -> StepInputs:
        """Send `batch`. `state` has applied its admissions and blocks already."""
        host = HostRows.of(batch)
        sampled_slots, sampled_positions = host.slots[host.sampled], host.seq_lens[host.sampled]
        sent = state.staging.send(
            [
                host.query_start,
                host.seq_lens,
                host.slots,
                host.token_slots,
                host.positions,
                sampled_slots,
                sampled_positions,
                host.query_start[host.sampled + 1] - 1,
            ]
        )
        query_start_R1, seq_lens_R, slot_R, slot_T, positions_T, slot_P, position_P, last_P = sent
        table, block_size = state.block_table_SB, state.block_size
        num_columns = -(-int(host.seq_lens.max()) // block_size)
        block_T = table[slot_T, positions_T // block_size].long()
        layout = BatchLayout(
            num_rows=len(host.slots),
            num_tokens=batch.num_tokens,
            num_decode_rows=batch.num_decode_rows,
            query_start_R1=query_start_R1.int(),
            seq_lens_R=seq_lens_R.int(),
            block_table_RB=table[slot_R, :num_columns],
            slot_mapping_T=block_T * block_size + positions_T % block_size,
            positions_T=positions_T,
            query_start_host=host.query_start.tolist(),
            seq_lens_host=host.seq_lens.tolist(),
        )
        return cls(
            token_ids_T=state.token_ids_SL[slot_T, positions_T],
            layout=layout,
            sampled_slots=sampled_slots.tolist(),
            slot_P=slot_P,
            position_P=position_P,
            last_P=last_P,
            max_position=int(sampled_positions.max()) if len(host.sampled) else 0,
        )
