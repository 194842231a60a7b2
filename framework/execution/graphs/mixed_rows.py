"""The rows of captured steps with prompt chunks: sent whole, in one copy per step.

Shape letters: T tokens of the graph, R its rows, P = R places for sampled rows.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Generic, NamedTuple, TypeVar

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
V = TypeVar("V")


class _Fields(NamedTuple, Generic[V]):
    """One value per field of the buffer, in the order in which the fields lie there."""

    slot_T: V
    """The slot of each token's request."""
    position_T: V
    """The position of each token in its request."""
    query_start_R1: V
    """The index of each row's first token in the step, and at the end the number of tokens."""
    seq_len_R: V
    """The length of each row's request, including the tokens of this step."""
    slot_R: V
    """The slot of each row's request."""
    slot_P: V
    """The slot of each sampled row."""
    position_P: V
    """The position of each sampled row's last token."""
    last_P: V
    """The index of each sampled row's last token in the step."""


class MixedRows:
    """One buffer that graphs read.

    What pads it has slot `state.num_slots`: it attends to nothing and writes nowhere.
    """

    def __init__(self, state: DeviceState, max_tokens: int, max_rows: int) -> None:
        self._state = state
        size = sum(_sizes(_lengths(GraphKey(max_tokens, max_rows))))
        self._buffer = torch.zeros(size, dtype=torch.int64, device=state.device)

    def load(self, batch: StepBatch, key: GraphKey) -> None:
        """Fill the buffer so that a replay of `key` computes `batch`."""
        host, nobody = HostRows.of(batch), self._state.num_slots
        fields = _Fields(  # the values of the batch, and the value of the padding behind them
            slot_T=(host.token_slots, nobody),
            position_T=(host.positions, 0),
            query_start_R1=(host.query_start, batch.num_tokens),
            seq_len_R=(host.seq_lens, 0),
            slot_R=(host.slots, nobody),
            slot_P=(host.slots[host.sampled], nobody),
            position_P=(host.seq_lens[host.sampled] - 1, 0),
            last_P=(host.query_start[host.sampled + 1] - 1, 0),
        )
        sizes = _sizes(_lengths(key))
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
        return views.slot_P, views.position_P

    def gather(self, key: GraphKey) -> CapturedRows:
        """Prepare all that a step needs, by device work alone."""
        state = self._state
        views = self._views(key)
        slot_T, position_T = views.slot_T, views.position_T
        block_T = state.block_table_SB[slot_T, position_T // state.block_size].long()
        slot_mapping_T = block_T * state.block_size + position_T % state.block_size
        layout = BatchLayout(
            num_rows=key.num_rows,
            num_tokens=key.num_tokens,
            num_decode_rows=0,
            query_start_R1=views.query_start_R1.int(),
            seq_lens_R=views.seq_len_R.int(),
            block_table_RB=state.block_table_SB[views.slot_R],
            slot_mapping_T=slot_mapping_T.masked_fill(slot_T == state.num_slots, -1),
            positions_T=position_T,
            query_start_host=[],
            seq_lens_host=[],
            kinds_vary=True,
        )
        return CapturedRows(
            token_ids_T=state.token_ids_SL[slot_T, position_T],
            layout=layout,
            slot_P=views.slot_P,
            position_P=views.position_P,
            last_P=views.last_P,
        )

    def _views(self, key: GraphKey) -> _Fields[Tensor]:
        lengths = _lengths(key)
        begins = accumulate(_sizes(lengths), initial=0)
        return _Fields(*(self._buffer[begin : begin + length] for begin, length in zip(begins, lengths, strict=False)))


def _lengths(key: GraphKey) -> _Fields[int]:
    """The number of values in each field of a graph."""
    num_tokens, num_rows = key.num_tokens, key.num_rows
    return _Fields(
        slot_T=num_tokens,
        position_T=num_tokens,
        query_start_R1=num_rows + 1,
        seq_len_R=num_rows,
        slot_R=num_rows,
        slot_P=num_rows,
        position_P=num_rows,
        last_P=num_rows,
    )


def _sizes(lengths: _Fields[int]) -> list[int]:
    """The room of each field in the buffer: a multiple of 16 bytes, which are two values."""
    return [length + length % 2 for length in lengths]
