"""FastServe's queue: where a prompt joins, when a request falls, and when it returns."""

from __future__ import annotations

from itertools import groupby

import pytest

from plugins.schedulers.mlfq import MLFQ
from tests.schedulers.drive import Job, serve


def test_a_request_that_used_its_quantum_yields_to_a_newcomer() -> None:
    jobs = [Job(max_tokens=40), Job(max_tokens=4, arrival_s=0.03)]
    served = serve(MLFQ(quantum_steps=4), jobs, max_num_seqs=1)
    assert served.admitted == [0, 1, 0]
    assert served.records[1].finish_s < served.records[0].finish_s


def test_within_its_quantum_a_request_keeps_its_slot() -> None:
    jobs = [Job(max_tokens=40), Job(max_tokens=4, arrival_s=0.03)]
    assert serve(MLFQ(quantum_steps=40), jobs, max_num_seqs=1).admitted == [0, 1]


def test_quanta_double_level_by_level() -> None:
    """Two equal requests on one slot change over whenever the one that runs falls below the other; while both are on
    one level, who runs goes on."""
    served = serve(MLFQ(quantum_steps=2, num_levels=4), [Job(max_tokens=20)] * 2, max_num_seqs=1)
    turns = [(number, len(list(steps))) for number, steps in groupby(next(iter(step)) for step in served.steps)]
    assert turns == [(0, 2), (1, 2 + 4), (0, 4 + 8), (1, 8 + 6), (0, 6)]


@pytest.mark.parametrize(
    ("prompt_tokens", "steps_before"), [(1, 8), (40, 8), (41, 12), (80, 12), (81, 60), (160, 60), (400, 60)]
)
def test_a_prompt_joins_the_level_that_covers_it(prompt_tokens: int, steps_before: int) -> None:
    """A newcomer at step 8 wants the slot of a request on level 1, which falls to level 2, the last, at step 12."""
    jobs = [Job(max_tokens=60), Job(prompt_tokens=prompt_tokens, max_tokens=1, arrival_s=0.03)]
    served = serve(MLFQ(quantum_steps=4, num_levels=3, tokens_per_step=10), jobs, max_num_seqs=1)
    assert next(i for i, step in enumerate(served.steps) if 1 in step) == steps_before


def test_the_steps_of_a_prompt_count_towards_its_first_quantum() -> None:
    """40 prompt tokens are the whole quantum of level 0, so that it falls with its first token; 20 leave two steps."""
    for prompt_tokens, steps_before in ((40, 1), (20, 2 + 1)):
        jobs = [Job(prompt_tokens=prompt_tokens, max_tokens=60), Job(arrival_s=0.001)]
        served = serve(MLFQ(quantum_steps=4, tokens_per_step=10), jobs, max_num_seqs=1)
        assert next(i for i, step in enumerate(served.steps) if 1 in step) == steps_before


def test_a_long_prompt_does_not_hold_up_a_short_one() -> None:
    jobs = [Job(prompt_tokens=400, max_tokens=2), Job(prompt_tokens=8, max_tokens=2, arrival_s=0.005)]
    served = serve(MLFQ(tokens_per_step=8), jobs, max_num_batched_tokens=64)
    assert served.steps[1] == {1: 8, 0: 56}


def test_waiting_too_long_returns_to_the_top() -> None:
    """New requests keep the one slot busy for ever; the request that fell gets it again once it has waited."""
    jobs = [Job(max_tokens=20)] + [Job(max_tokens=6, arrival_s=0.02 + 0.02 * number) for number in range(60)]
    patient = serve(MLFQ(quantum_steps=6, starvation_s=100), jobs, max_num_seqs=1)
    assert patient.admitted[-1] == 0
    promoted = serve(MLFQ(quantum_steps=6, starvation_s=0.3), jobs, max_num_seqs=1)
    assert promoted.records[0].finish_s < 0.75 * patient.records[0].finish_s
