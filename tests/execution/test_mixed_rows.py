"""What a captured step with prompt chunks reads: the batch, and padding that attends to nothing and writes nowhere."""

from __future__ import annotations

from array import array

import torch

from framework.execution.graphs.mixed_rows import MixedRows
from framework.execution.step.device_state import DeviceState
from framework.interfaces.executor import Admission, StepBatch
from framework.interfaces.graph import GraphKey
from framework.interfaces.sampling_params import SamplingParams

KEY = GraphKey(8, 4)
NOBODY = 3
"""One past the last slot"""


def state() -> DeviceState:
    """Slot 2 is at its 5th token, in block 6; slot 0 has a prompt of 9 tokens, in blocks 4 and 1."""
    made = DeviceState(num_slots=3, max_model_len=16, block_size=8, device=torch.device("cpu"))
    prompts = ((2, range(20, 25)), (0, range(9)))
    made.apply(
        StepBatch(
            step=0,
            num_tokens=0,
            num_decode_rows=0,
            row_tokens=[],
            admissions=[
                Admission(slot, slot, array("i", ids), len(ids), SamplingParams(), seed=slot) for slot, ids in prompts
            ],
            new_blocks=[(2, 0, [6]), (0, 0, [4, 1])],
        )
    )
    return made


BATCH = StepBatch(
    step=1, num_tokens=4, num_decode_rows=1, row_tokens=[1, 3], slots=[2, 0], starts=[4, 6], samples=[True, False]
)


def test_rows_tokens_and_their_padding() -> None:
    rows = MixedRows(state(), max_tokens=16, max_rows=4)
    rows.load(BATCH, KEY)
    found = rows.gather(KEY)
    layout = found.layout
    assert found.token_ids_T.tolist() == [24, 6, 7, 8, 0, 0, 0, 0]
    assert layout.positions_T.tolist() == [4, 6, 7, 8, 0, 0, 0, 0]
    assert layout.slot_mapping_T.tolist() == [6 * 8 + 4, 4 * 8 + 6, 4 * 8 + 7, 1 * 8, -1, -1, -1, -1]
    assert layout.query_start_R1.tolist() == [0, 1, 4, 4, 4]
    assert layout.seq_lens_R.tolist() == [5, 9, 0, 0]
    assert layout.block_table_RB[:2].tolist() == [[6, 0], [4, 1]]
    assert layout.kinds_vary


def test_only_sampled_rows_get_a_token() -> None:
    rows = MixedRows(state(), max_tokens=16, max_rows=4)
    rows.load(BATCH, KEY)
    found = rows.gather(KEY)
    assert found.slot_P.tolist() == [2, NOBODY, NOBODY, NOBODY]
    assert found.position_P.tolist()[0] == 4
    assert found.last_P is not None
    assert found.last_P.tolist() == [0, 0, 0, 0]
    assert [one.tolist() for one in rows.sampled(KEY)] == [found.slot_P.tolist(), found.position_P.tolist()]


def test_nothing_is_left_of_the_batch_before() -> None:
    rows = MixedRows(state(), max_tokens=16, max_rows=4)
    rows.load(BATCH, KEY)
    rows.clear(KEY)
    found = rows.gather(KEY)
    assert set(found.slot_P.tolist()) == {NOBODY}
    assert set(found.layout.slot_mapping_T.tolist()) == {-1}
    assert set(found.layout.seq_lens_R.tolist()) == {0} == set(found.layout.query_start_R1.tolist())
