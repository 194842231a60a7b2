"""VTC: the paper's bound on service, and that idling saves nothing up."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from framework.engine.engine import Engine
from framework.interfaces.scheduler import Scheduler
from plugins.schedulers.chunked_prefill import ChunkedPrefill
from plugins.schedulers.fair import Fair
from tests.schedulers.drive import Job, serve

PROMPT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0
MAX_PROMPT_TOKENS, MAX_OUTPUT_TOKENS = 16, 6


def largest_gap(scheduler: Scheduler, jobs: list[Job], max_num_seqs: int) -> float:
    """The most by which the services of two clients drift apart while requests of both wait without a break."""
    service = {job.client: 0.0 for job in jobs}
    low: dict[tuple[str, str], float] = {}
    largest = 0.0

    def note(engine: Engine, admitted: list[int]) -> None:
        nonlocal largest
        for client in service:
            mine = [number for number, job in enumerate(jobs) if job.client == client]
            prompts = sum(jobs[number].prompt_tokens for number in mine if number in started)
            service[client] = PROMPT_WEIGHT * prompts + OUTPUT_WEIGHT * outputs(engine, mine)
        backlogged = {request.client for request in engine.queue.waiting}
        for one in service:
            for other in service:
                if one == other or not {one, other} <= backlogged:
                    low.pop((one, other), None)
                    continue
                ahead = service[one] - service[other]
                low[one, other] = min(low.get((one, other), ahead), ahead)
                largest = max(largest, ahead - low[one, other])

    started: set[int] = set()
    produced: dict[int, int] = {}

    def outputs(engine: Engine, mine: list[int]) -> int:
        for request in engine.queue.running:
            produced[request.id] = request.num_output
        gone = started - {request.id for request in engine.queue.running}
        return sum(jobs[n].max_tokens if n in gone else produced.get(n, 0) for n in mine)

    def after(engine: Engine, admitted: list[int]) -> None:
        started.update(admitted)
        note(engine, admitted)

    serve(scheduler, jobs, after_step=after, max_num_seqs=max_num_seqs)
    return largest


def bound(max_num_seqs: int) -> float:
    tokens_of_a_full_batch = max_num_seqs * (MAX_PROMPT_TOKENS + MAX_OUTPUT_TOKENS)
    return 2 * max(PROMPT_WEIGHT * MAX_PROMPT_TOKENS, OUTPUT_WEIGHT * tokens_of_a_full_batch)


@st.composite
def floods(draw: st.DrawFn) -> list[Job]:
    """Clients that send long and short requests at very different rates."""
    jobs = []
    for client, num_jobs in zip("abc", draw(st.permutations([40, 25, 10])), strict=True):
        prompt_tokens = draw(st.integers(1, MAX_PROMPT_TOKENS))
        max_tokens = draw(st.integers(1, MAX_OUTPUT_TOKENS))
        start_s = draw(st.sampled_from([0.0, 0.0, 0.1]))
        jobs += [Job(prompt_tokens=prompt_tokens, max_tokens=max_tokens, client=client, arrival_s=start_s)] * num_jobs
    return sorted(jobs, key=lambda job: job.arrival_s)


@settings(max_examples=25, deadline=None)
@given(jobs=floods(), max_num_seqs=st.integers(1, 2))
def test_backlogged_clients_are_served_alike(jobs: list[Job], max_num_seqs: int) -> None:
    assert largest_gap(Fair(), jobs, max_num_seqs) <= bound(max_num_seqs)


def test_first_come_first_served_is_not_fair() -> None:
    """The bound is not one that any scheduler keeps."""
    jobs = [Job(prompt_tokens=16, max_tokens=6, client=client) for client in "a" * 40 + "b" * 40]
    assert largest_gap(ChunkedPrefill(), jobs, 1) > 4 * bound(1)
    assert largest_gap(Fair(), jobs, 1) <= PROMPT_WEIGHT * 16 + OUTPUT_WEIGHT * 6


def test_a_client_that_returns_is_not_owed_what_it_did_not_ask_for() -> None:
    busy = [Job(client="busy", arrival_s=0.0)] * 60
    returning = [Job(client="idle", arrival_s=0.3)] * 20
    served = serve(Fair(), busy + returning, max_num_seqs=1)
    after = served.admitted[served.admitted.index(60) :]
    turns = ["idle" if number >= 60 else "busy" for number in after[:20]]
    assert 8 <= turns.count("idle") <= 12


def test_output_tokens_weigh_as_stated() -> None:
    long_outputs = [Job(prompt_tokens=4, max_tokens=16, client="long")] * 40
    short_outputs = [Job(prompt_tokens=4, max_tokens=2, client="short")] * 40
    served = serve(Fair(prompt_weight=1, output_weight=0), long_outputs + short_outputs, max_num_seqs=1)
    assert sum(number < 40 for number in served.admitted[:40]) == 20
    served = serve(Fair(prompt_weight=0, output_weight=1), long_outputs + short_outputs, max_num_seqs=1)
    first = [number < 40 for number in served.admitted[:36]]
    assert sum(first) == 4  # 16 tokens against 8 times 2


def test_recomputing_after_a_preemption_is_not_charged() -> None:
    scheduler = Fair()
    jobs = [Job(prompt_tokens=8, max_tokens=40, client=client) for client in "abcd"]
    served = serve(scheduler, jobs, num_blocks=24)
    assert served.num_preemptions > 0
    assert set(scheduler.counters.values()) == {PROMPT_WEIGHT * 8 + OUTPUT_WEIGHT * 40}
