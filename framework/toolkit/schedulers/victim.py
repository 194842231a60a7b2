"""What most schedulers do with requests that run already: keep all of them going, and choose who yields its blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from framework.interfaces.scheduler import Queue, RequestView, StepPlan, Verdict

Victim = Literal["youngest", "oldest", "fewest_computed"]
"""Who is preempted when blocks run out: `youngest` was admitted last, `oldest` arrived first, `fewest_computed` has the
fewest computed tokens and so the least to compute again (of equals the one admitted last)."""

VictimChooser = Callable[[Sequence[RequestView]], RequestView]
"""One of the running requests, in admission order. There must always be one request whom it takes last and that stays
this one until it has made progress: two requests that preempt each other in turn would run for ever."""


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
    """Plan every running request, decode rows before prefill chunks, preempting until their blocks suffice.

    Returns the requests that were preempted, which wait again. Admit nobody in a step that preempted somebody: the
    blocks just freed belong to those who run.
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
