"""The waiting queue is a deque in all that a policy can see, and does not pay for its length."""

from __future__ import annotations

import time
from array import array
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.engine.request import Request
from framework.engine.waiting import WaitingQueue
from framework.interfaces.request import RequestSpec


def request(number: int) -> Request:
    return Request(
        id=number,
        token_ids=array("i", [1]),
        num_prompt=1,
        max_total_tokens=2,
        spec=RequestSpec(),
        seed=0,
        stop_ids=frozenset(),
        arrival_s=0.0,
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["append", "appendleft", "remove"]), st.integers(0, 30)), max_size=40))
def test_like_a_deque(changes: list[tuple[str, int]]) -> None:
    queue, model, gone = WaitingQueue(), deque[Request](), request(-1)
    for number, (change, place) in enumerate(changes):
        if change != "remove":
            one = request(number)
            getattr(queue, change)(one)
            getattr(model, change)(one)
        elif model:
            gone = model[place % len(model)]
            queue.remove(gone)
            model.remove(gone)
        assert list(queue) == list(model)
        assert list(reversed(queue)) == list(reversed(model))
        assert (len(queue), bool(queue)) == (len(model), bool(model))
        assert [queue[i] for i in range(-len(queue), len(queue))] == [model[i] for i in range(-len(model), len(model))]
        assert queue[1:-1] == list(model)[1:-1]
        assert (gone in queue, request(number) in queue) == (False, False)
        assert all(one in queue for one in model)
    for index in (len(model), -len(model) - 1):
        with pytest.raises(IndexError):
            queue[index]


def test_changing_it_under_an_iteration_is_an_error() -> None:
    queue = WaitingQueue()
    for number in range(3):
        queue.append(request(number))
    iterator = iter(queue)
    queue.remove(next(iterator))
    with pytest.raises(RuntimeError, match="mutated during iteration"):
        next(iterator)


def test_taking_one_out_of_the_middle_is_cheap_however_many_wait() -> None:
    queue, middle = WaitingQueue(), []
    for number in range(100_000):
        one = request(number)
        queue.append(one)
        if 48_000 <= number < 52_000:
            middle.append(one)
    started_s = time.process_time()
    for one in middle:
        queue.remove(one)
    spent_s = time.process_time() - started_s
    assert len(queue) == 96_000
    assert spent_s < 0.2, "4000 scans of a deque take seconds"


def test_places_in_the_middle_are_cheap_while_nothing_changes() -> None:
    queue = WaitingQueue()
    for number in range(20_000):
        queue.append(request(number))
    started_s = time.process_time()
    assert sum(queue[place].id for place in range(len(queue))) == sum(range(20_000))
    assert time.process_time() - started_s < 0.2, "a walk to each place takes seconds"
