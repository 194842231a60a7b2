"""The rows of captured steps with prompt chunks: sent whole, in one copy per step.

Shape letters: T tokens of the graph, R its rows, P = R places for sampled rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from framework.execution.step.device_state import DeviceState
from framework.execution.step.rows import CapturedRows
from framework.execution.step.step_inputs import HostRows
from framework.interfaces.attention import BatchLayout
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import GraphKey

_NOBODY = StepBatch(step=0, num_tokens=0, num_decode_rows=0, row_tokens=[])


class MixedRows:
    """One buffer that graphs read.

    What pads it has slot `state.num_slots`: it attends to nothing and writes nowhere.
    """

    def __init__(self, state: DeviceState, max_tokens: int, max_rows: int) -> None:
        self._state = state
        size = sum(_sizes(GraphKey(max_tokens, max_rows)))
        self._buffer = torch.zeros(size, dtype=torch.int64, device=state.device)

    def load(self, batch: StepBatch, key: GraphKey) -> None:
        """Fill the buffer so that a replay of `key` computes `batch`."""
        host, nobody = HostRows.of(batch), self._state.num_slots
        fields = (
            (host.token_slots, nobody),
            (host.positions, 0),
            (host.query_start, batch.num_tokens),
            (host.seq_lens, 0),
            (host.slots, nobody),
            (host.slots[host.sampled], nobody),
            (host.seq_lens[host.sampled] - 1, 0),
            (host.query_start[host.sampled + 1] - 1, 0),
        )
        sizes = _sizes(key)
        values = np.empty(sum(sizes), dtype=np.int64)
        begin = 0
        for size, (field, padding) in zip(sizes, fields, strict=True):
            values[begin : begin + len(field)] = field
            values[begin + len(field) : begin + size] = padding
            begin += size
        (sent,) = self._state.staging.send([values])
        self._buffer[:begin].copy_(sent)

    def clear(self, key: GraphKey) -> None:
        """Fill the buffer with padding only."""
        self.load(_NOBODY, key)

    def sampled(self, key: GraphKey) -> tuple[Tensor, Tensor]:
        """The slots and the positions of the last tokens of the sampled rows, [P] each."""
        views = self._views(key)
        return views[5], views[6]

    def gather(self, key: GraphKey) -> CapturedRows:
        """Prepare all that a step needs, by device work alone."""
        state = self._state
        slot_T, position_T, query_start_R1, seq_len_R, slot_R, slot_P, position_P, last_P = self._views(key)
        block_T = state.block_table_SB[slot_T, position_T // state.block_size].long()
        slot_mapping_T = block_T * state.block_size + position_T % state.block_size
        layout = BatchLayout(
            num_rows=key.num_rows,
            num_tokens=key.num_tokens,
            num_decode_rows=0,
            query_start_R1=query_start_R1.int(),
            seq_lens_R=seq_len_R.int(),
            block_table_RB=state.block_table_SB[slot_R],
            slot_mapping_T=slot_mapping_T.masked_fill(slot_T == state.num_slots, -1),
            positions_T=position_T,
            query_start_host=[],
            seq_lens_host=[],
            kinds_vary=True,
        )
        return CapturedRows(state.token_ids_SL[slot_T, position_T], layout, slot_P, position_P, last_P)

    def _views(self, key: GraphKey) -> list[Tensor]:
        num_tokens, num_rows = key.num_tokens, key.num_rows
        lengths = (num_tokens, num_tokens, num_rows + 1, *[num_rows] * 5)
        sizes = _sizes(key)
        begins = np.cumsum((0, *sizes[:-1])).tolist()
        return [self._buffer[begin : begin + length] for begin, length in zip(begins, lengths, strict=True)]


def _sizes(key: GraphKey) -> tuple[int, ...]:
    """The sizes of the fields in a graph's buffer, each a multiple of 16 bytes."""
    tokens, rows = key.num_tokens + key.num_tokens % 2, key.num_rows + key.num_rows % 2
    return tokens, tokens, rows + 2, rows, rows, rows, rows, rows
