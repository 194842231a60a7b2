"""Cache-aware order, its fallback, and how often it looks the prefixes up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.engine.engine import Engine
from plugins.schedulers.longest_prefix import LongestPrefix
from tests.engine import traces
from tests.schedulers.drive import Job, serve

SHARED = tuple(range(24))


def prompts_after_a_first_one() -> list[Job]:
    """One request fills the cache; then others arrive that share 0, 8, 24 and 16 of its tokens."""
    lengths = [0, 8, 24, 16]
    others = [Job(prompt=SHARED[:n] + tuple(1000 * (k + 1) + i for i in range(8))) for k, n in enumerate(lengths)]
    return [Job(prompt=(*SHARED, 7)), *others]


def test_the_most_cached_goes_first() -> None:
    served = serve(LongestPrefix(), prompts_after_a_first_one(), max_num_seqs=1)
    assert served.admitted == [0, 3, 4, 2, 1]
    assert [served.records[number].num_cached_tokens for number in range(5)] == [0, 0, 8, 24, 16]


def test_depth_first_walks_the_branch_that_most_requests_share() -> None:
    other = tuple(range(500, 524))
    fill = [Job(prompt=(*SHARED, 7)), Job(prompt=(*other, 8))]
    prefixes = [SHARED, other, SHARED[:8], other, other[:8], ()]
    waiting = [Job(prompt=prefix + tuple(1000 * (k + 1) + i for i in range(8))) for k, prefix in enumerate(prefixes)]
    jobs = fill + [replace(job, arrival_s=0.1) for job in waiting]
    assert serve(LongestPrefix(), jobs).admitted == [0, 1, 2, 3, 5, 4, 6, 7]
    assert serve(LongestPrefix(order="depth_first"), jobs).admitted == [0, 1, 3, 5, 6, 2, 4, 7]


def test_equal_prefixes_go_in_order_of_arrival() -> None:
    assert serve(LongestPrefix(), [Job()] * 5, max_num_seqs=1).admitted == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("max_waiting", "order"), [(4, [0, 3, 4, 2, 1]), (3, [0, 1, 4, 3, 2]), (0, [0, 1, 2, 3, 4])])
def test_with_too_many_waiting_it_is_first_come_first_served(max_waiting: int, order: list[int]) -> None:
    jobs = prompts_after_a_first_one()
    if max_waiting == 3:  # one goes in order of arrival, then three are left: 8, 24 and 16 cached tokens
        order = [0, 1, 3, 4, 2]
    assert serve(LongestPrefix(max_waiting=max_waiting), jobs, max_num_seqs=1).admitted == order


def test_a_prefix_is_found_as_soon_as_its_chunks_are_computed() -> None:
    """The order is looked up again after every chunk: what request 0 computes makes request 2 overtake request 1."""
    long = tuple(range(96))
    jobs = [Job(prompt=long, max_tokens=1), Job(prompt_tokens=64), Job(prompt=(*long[:32], 9), max_tokens=1)]
    served = serve(LongestPrefix(), jobs, max_num_batched_tokens=40, max_num_seqs=2)
    assert served.admitted == [0, 2, 1]


def test_the_last_chunk_of_a_prompt_counts_too() -> None:
    """Request 3 shares 40 tokens with request 1 at first, and 48 a step later: more than the 44 cached ones of
    request 2, for which there are no blocks."""
    cached, growing = tuple(range(500, 544)), tuple(range(48))
    jobs = [
        Job(prompt=(*cached, 7), max_tokens=1),
        Job(prompt=growing, max_tokens=8, arrival_s=0.1),
        Job(prompt=cached + tuple(range(1000, 1040)), arrival_s=0.101),
        Job(prompt=(*growing, 9), arrival_s=0.101),
    ]
    served = serve(LongestPrefix(), jobs, num_blocks=24, max_num_batched_tokens=40)
    assert served.steps[served.steps.index({1: 8}) + 1] == {1: 1, 3: 1}


def test_a_request_that_was_aborted_is_out_of_the_order() -> None:
    def abort(engine: Engine, admitted: list[int]) -> None:
        if [request.num_output for request in engine.queue.running] == [3] and len(engine.queue.waiting) == 2:
            engine.abort(engine.queue.waiting[0].id)

    jobs = [Job(prompt_tokens=60, max_tokens=8), Job(prompt_tokens=60), Job(prompt_tokens=60)]
    assert serve(LongestPrefix(), jobs, after_step=abort, num_blocks=20).admitted == [0, 2]


def test_nothing_is_looked_up_while_nothing_changes() -> None:
    calls = 0

    def count(engine: Engine) -> None:
        if "cached_tokens" not in vars(engine.plan):
            original = engine.plan.cached_tokens

            def counting(request: object) -> int:
                nonlocal calls
                calls += 1
                return original(request)  # type: ignore[arg-type]

            engine.plan.cached_tokens = counting  # type: ignore[method-assign]

    jobs = [Job(prompt_tokens=40, max_tokens=60)] + [Job(prompt_tokens=100, max_tokens=4)] * 10
    served = serve(LongestPrefix(), jobs, before_step=count, num_blocks=27)
    assert len(served.steps) > 60  # most of them with a free slot and no blocks for the first in the order
    assert calls < 200


@settings(max_examples=15, deadline=None)
@given(trace=traces.traces(), seed=st.integers(0, 1000))
def test_every_request_ends_depth_first(trace: traces.Trace, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traces, "build_scheduler", lambda name, seed: LongestPrefix(order="depth_first"))
        for overlap in (0, 1):
            traces.run_trace(trace, scheduler="longest_prefix", eviction="lru", overlap=overlap, seed=seed)
