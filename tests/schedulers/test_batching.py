"""Which rows share a step: static batches, and decodes that no prompt disturbs."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from framework.engine.engine import Engine
from plugins.schedulers.chunked_prefill import ChunkedPrefill
from plugins.schedulers.decode_first import DecodeFirst
from plugins.schedulers.static_batch import StaticBatch
from tests.schedulers.drive import Job, Served, serve

jobs = st.lists(
    st.builds(
        Job,
        prompt_tokens=st.integers(2, 30),
        max_tokens=st.integers(1, 20),
        arrival_s=st.sampled_from([0.0, 0.01, 0.02, 0.05, 0.1]),
    ),
    min_size=2,
    max_size=12,
).map(lambda jobs: sorted(jobs, key=lambda job: job.arrival_s))


def joined_while_running(served: Served) -> list[tuple[int, int]]:
    """Pairs of requests of which one was admitted after the other's first token and before its end."""
    pairs = []
    for one, other in combinations(served.records.values(), 2):
        first, second = sorted((one, other), key=lambda record: record.scheduled_s)
        if first.first_token_s <= second.scheduled_s < first.finish_s and first.num_output_tokens > 1:
            pairs.append((first.request_id, second.request_id))
    return pairs


@settings(max_examples=40, deadline=None)
@given(jobs=jobs, num_blocks=st.sampled_from([16, 40, 512]), budget=st.sampled_from([16, 64]))
def test_static_batch_never_admits_while_one_runs(jobs: list[Job], num_blocks: int, budget: int) -> None:
    served = serve(StaticBatch(), jobs, num_blocks=num_blocks, max_num_batched_tokens=budget, max_num_seqs=6)
    ends = sorted(served.records.values(), key=lambda record: record.scheduled_s)
    starts_s = [served.records[number].scheduled_s for number in range(len(jobs))]
    assert starts_s == sorted(starts_s), "not in order of arrival"
    assert served.num_preemptions == 0
    batch_ends_s = 0.0
    batch = [ends[0]]
    for record in ends[1:]:
        if record.scheduled_s >= max(other.finish_s for other in batch):
            batch_ends_s, batch = max(other.finish_s for other in batch), [record]
        else:
            assert len(batch) < 6
            assert record.arrival_s <= batch[0].scheduled_s, "who came later joined a batch"
            batch.append(record)
        assert batch_ends_s <= record.scheduled_s


def test_continuous_batching_does_admit_while_one_runs() -> None:
    jobs = [Job(max_tokens=20), Job(arrival_s=0.03)]
    assert joined_while_running(serve(ChunkedPrefill(), jobs)) == [(0, 1)]
    assert joined_while_running(serve(StaticBatch(), jobs)) == []


def test_static_batch_runs_all_prompts_before_the_first_decode() -> None:
    jobs = [Job(prompt_tokens=20, max_tokens=5)] * 4
    served = serve(StaticBatch(batch_size=3), jobs, max_num_batched_tokens=32)
    assert served.steps[:2] == [{0: 20, 1: 12}, {1: 8, 2: 20}]
    assert served.steps[2:6] == [{0: 1, 1: 1, 2: 1}] * 4
    assert served.steps[6] == {3: 20}


def test_static_batch_forgets_an_aborted_prompt() -> None:
    def abort(engine: Engine, admitted: list[int]) -> None:
        if 0 in admitted:
            engine.abort(1)  # chosen for the batch, not admitted yet

    served = serve(
        StaticBatch(), [Job(prompt_tokens=16, max_tokens=2)] * 3, after_step=abort, max_num_batched_tokens=16
    )
    assert served.admitted == [0, 2]


@settings(max_examples=40, deadline=None)
@given(jobs=jobs, refill_below=st.integers(1, 4), overlap=st.integers(0, 1))
def test_decode_first_leaves_decodes_alone(jobs: list[Job], refill_below: int, overlap: int) -> None:
    served = serve(DecodeFirst(refill_below=refill_below), jobs, max_num_batched_tokens=48, overlap=overlap)
    computed = dict.fromkeys(range(len(jobs)), 0)
    was_decoding = False
    for step in served.steps:
        # By the definition of a decode row, the last token of a prompt that the budget split there is one too.
        decoding = {n for n, job in enumerate(jobs) if computed[n] >= job.prompt_tokens - 1}
        alive = {n for n in decoding if computed[n] < jobs[n].prompt_tokens + jobs[n].max_tokens - 1}
        prompts = step.keys() - decoding
        assert not (prompts and step.keys() & decoding), "a prompt and a decode share a step"
        if prompts and was_decoding:
            assert len(alive) < refill_below, "a prompt interrupted decodes"
        was_decoding = not prompts
        for number, num in step.items():
            computed[number] += num


def test_decode_first_refills_until_no_more_fit() -> None:
    jobs = [Job(prompt_tokens=16, max_tokens=3)] * 5
    served = serve(DecodeFirst(), jobs, max_num_batched_tokens=16, max_num_seqs=4)
    assert served.steps[:6] == [{0: 16}, {1: 16}, {2: 16}, {3: 16}, {0: 1, 1: 1, 2: 1, 3: 1}, {0: 1, 1: 1, 2: 1, 3: 1}]
    assert served.steps[6] == {4: 16}
