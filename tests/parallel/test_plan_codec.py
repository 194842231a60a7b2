"""Plans survive the way to another rank, and what goes on as before is short."""

from array import array
from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from framework.execution.parallel.plan_codec import PlanDecoder, PlanEncoder
from framework.interfaces.executor import Admission, StepBatch
from framework.interfaces.sampling_params import SamplingParams

numbers = st.integers(0, 2**31 - 2)
params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0, 0.7]),
    top_p=st.sampled_from([0.1, 1.0]),
    logit_bias=st.dictionaries(st.integers(0, 9), st.floats(-1, 1), max_size=2),
    seed=st.none() | st.integers(0, 2**64 - 1),
    stop=st.sampled_from([(), ("\n", "</s>")]),
    stop_token_ids=st.sampled_from([(), (3, 4)]),
    logprobs=st.none() | st.integers(0, 3),
    ignore_eos=st.booleans(),
)


@st.composite
def batches(draw: Any) -> StepBatch:
    """A step of any kind, whether or not it makes sense after the one before."""
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    num_decode_rows = draw(st.integers(0, len(counts)))
    counts[:num_decode_rows] = [1] * num_decode_rows
    rows = len(counts)
    admissions = [
        Admission(slot, request, array("i", tokens), len(tokens), draw(params), seed=request)
        for slot, request, tokens in draw(st.lists(st.tuples(numbers, numbers, st.lists(numbers, max_size=4))))
    ]
    return StepBatch(
        step=draw(numbers),
        num_tokens=sum(counts),
        num_decode_rows=num_decode_rows,
        row_tokens=counts,
        slots=draw(st.lists(numbers, min_size=rows, max_size=rows)),
        starts=draw(st.lists(st.integers(0, 10_000), min_size=rows, max_size=rows)),
        samples=draw(st.lists(st.booleans(), min_size=rows, max_size=rows)),
        admissions=admissions,
        new_blocks=draw(st.lists(st.tuples(numbers, numbers, st.lists(numbers, max_size=3)), max_size=3)),
        eager=draw(st.booleans()),
    )


def next_step(batch: StepBatch) -> StepBatch:
    """Every row of it goes on with the token that it sampled."""
    rows = len(batch.slots)
    ends = [start + count for start, count in zip(batch.starts, batch.row_tokens, strict=True)]
    return StepBatch(batch.step + 1, rows, rows, [1] * rows, batch.slots[:], ends, [True] * rows)


@given(st.lists(st.tuples(batches(), st.integers(0, 3)), max_size=4))
def test_every_plan_comes_out_as_it_went_in(plans: list[tuple[StepBatch, int]]) -> None:
    encoder, decoder = PlanEncoder(), PlanDecoder()
    for batch, num_more in plans:
        for _ in range(1 + num_more):
            assert decoder.decode(encoder.encode(deepcopy(batch))) == batch
            batch = next_step(batch)


@given(batches())
def test_rows_that_go_on_are_not_sent_again(batch: StepBatch) -> None:
    encoder = PlanEncoder()
    encoder.encode(batch)
    going_on = next_step(batch)
    assert len(encoder.encode(going_on)) == 17
    going_on = next_step(going_on)
    going_on.slots[0] += 1
    assert len(encoder.encode(going_on)) > 16 * len(batch.slots)
