"""What most schedulers do with running requests: keep them going, and choose one that yields its blocks if need be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from framework.interfaces.scheduler import Queue, RequestView, StepPlan, Verdict

Victim = Literal["youngest", "oldest", "fewest_computed"]
"""Which request is preempted when blocks run out. `youngest` was admitted last, and `oldest` arrived first.
`fewest_computed` has the fewest computed tokens, so the least is computed again; of equals, the one admitted last."""

VictimChooser = Callable[[Sequence[RequestView]], RequestView]
"""Chooses one of the running requests, which come in order of admission. There must always be one request that is
chosen last, and it must stay the last until it has made progress. Otherwise two requests could preempt each other for
ever."""


def victim_chooser(victim: Victim) -> VictimChooser:
    """The function behind a scheduler's `victim` parameter.

    Raises:
        ValueError: `victim` is none of the choices.
    """
    if victim not in _CHOOSERS:
        raise ValueError(f"scheduler.victim={victim!r} does not exist; choose from {', '.join(_CHOOSERS)}")
    return _CHOOSERS[victim]


def continue_running(
    queue: Queue, plan: StepPlan, choose: VictimChooser, *, max_chunk_tokens: int | None = None
) -> list[RequestView]:
    """Plan every running request, decode rows before prefill chunks, and preempt until their blocks suffice.

    Returns the requests that were preempted, which wait again. Admit no request in a step that preempted one, because
    the freed blocks belong to the running requests.
    """
    preempted: list[RequestView] = []
    prefilling = []
    add, no_blocks = plan.add, Verdict.NO_BLOCKS
    for request in tuple(queue.running):
        if request.num_pending > 1:
            prefilling.append(request)
            continue
        while add(request) is no_blocks:  # NOT_READY once it is a victim itself
            preempted.append(_preempt(queue, plan, choose))
    for request in prefilling:
        while add(request, max_chunk_tokens) is no_blocks:
            preempted.append(_preempt(queue, plan, choose))
    return preempted


def _preempt(queue: Queue, plan: StepPlan, choose: VictimChooser) -> RequestView:
    victim = choose(queue.running)
    plan.preempt(victim)
    return victim


def _youngest(running: Sequence[RequestView]) -> RequestView:
    return running[-1]


def _oldest(running: Sequence[RequestView]) -> RequestView:
    return min(running, key=lambda request: request.id)


def _fewest_computed(running: Sequence[RequestView]) -> RequestView:
    return min(reversed(running), key=lambda request: request.num_computed)


_CHOOSERS: dict[str, VictimChooser] = {
    "youngest": _youngest,
    "oldest": _oldest,
    "fewest_computed": _fewest_computed,
}
