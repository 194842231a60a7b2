"""Preempting in turn for ever ends the run; thrashing that gets somewhere does not."""

from __future__ import annotations

import pytest

from framework.engine import livelock
from framework.interfaces.errors import PluginError
from framework.interfaces.request import RequestSpec
from framework.interfaces.scheduler import Queue, Scheduler, StepPlan
from plugins.eviction.lru import LRU
from tests.conformance.broken_schedulers import AddsAndPreempts, PreemptsInTurn
from tests.engine.shadow import make_engine, params

pytestmark = pytest.mark.timeout(30)  # what is tested for is an endless loop


def run(scheduler: Scheduler, *max_tokens: int, overlap: int = 0, prompt_tokens: int = 30) -> int:
    """Serve requests to their end and return how often they were preempted."""
    engine = make_engine(scheduler, LRU(), prefix_caching=False, overlap=overlap, num_blocks=512)
    for number, most in enumerate(max_tokens):
        engine.add_request(
            RequestSpec(prompt_token_ids=[number + 1] * prompt_tokens, params=params(most, ignore_eos=True))
        )
    outputs = []
    while engine.has_work:
        outputs += [output for output in engine.step() if output.finished]
    assert sorted(output.request_id for output in outputs) == list(range(len(max_tokens)))
    return sum(output.record.num_preemptions for output in outputs if output.record)


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("scheduler", [PreemptsInTurn, AddsAndPreempts])
def test_nobody_gets_any_further(scheduler: type[Scheduler], overlap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livelock, "MAX_FRUITLESS_PREEMPTIONS", 40)
    with pytest.raises(PluginError, match=rf"{scheduler.__name__}.*request \d was preempted 41 times.*got any further"):
        run(scheduler(), 4, 4, overlap=overlap)


class TakesTurns(Scheduler):
    """Two requests take turns, a token per step, and lose all they have when their turn is over."""

    def __init__(self, turn_steps: int, longer_by: int) -> None:
        self.turn_steps, self.longer_by, self.left = turn_steps, longer_by, turn_steps

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        if self.left <= 0 and queue.waiting and queue.running:
            plan.preempt(queue.running[0])
            self.turn_steps += self.longer_by
            self.left = self.turn_steps
        self.left -= 1
        for request in (*queue.running, *list(queue.waiting)[-1:])[:1]:
            plan.add(request, 1)


def test_turns_that_get_longer_end_after_any_number_of_preemptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livelock, "MAX_FRUITLESS_PREEMPTIONS", 3)
    assert run(TakesTurns(1, 1), 4, 4) > 20


def test_turns_of_one_length_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livelock, "MAX_FRUITLESS_PREEMPTIONS", 3)
    with pytest.raises(PluginError, match="preempted 4 times"):
        run(TakesTurns(20, 0), 4, 4)


class KeepsOneDown(Scheduler):
    """The second request is admitted and preempted at once for as long as the first one has something to do."""

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        for request in [*queue.running, *queue.waiting]:
            if request.id and any(other.id == 0 for other in queue.running):
                if request.running or plan.add(request, 1).value == "ok":
                    plan.preempt(request)
            else:
                plan.add(request, 1)


@pytest.mark.parametrize("prompt_tokens", [30, 300])
def test_preemptions_do_not_count_while_somebody_gets_on(prompt_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding is progress, and so is a long prompt in small chunks, which delivers no token for long."""
    monkeypatch.setattr(livelock, "MAX_FRUITLESS_PREEMPTIONS", 3)
    assert run(KeepsOneDown(), 60, 3, prompt_tokens=prompt_tokens) > 80
