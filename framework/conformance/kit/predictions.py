"""Asks a predictor about the requests of a trace, as an engine does, and notes its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from framework.conformance.kit.shadow import make_engine
from framework.conformance.kit.time_limit import time_limit
from framework.conformance.kit.traces import Trace
from framework.engine.engine import Engine
from framework.engine.request import Request
from framework.interfaces.predictor import Predictor
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.registry import EVICTIONS, SCHEDULERS

_LIMIT_S = 4.0


class Asked(NamedTuple):
    """One question, and its answer."""

    request_id: int
    num_output: int
    mean: float
    quantiles: tuple[float, ...]
    ended: bool = False
    """Whether this stands for the end of the request, of which nothing was asked."""


def predictions(
    trace: Trace, predictor: Predictor, shares: Sequence[float], longer: Mapping[int, int] | None = None
) -> list[Asked]:
    """Every answer, in order: at arrivals, and of every running request after every step.

    Args:
        longer: request -> tokens by which it is longer than the trace says.
    """
    engine = make_engine(
        SCHEDULERS.get("chunked_prefill")(),
        EVICTIONS.get("lru")(),
        num_blocks=trace.num_blocks,
        block_size=trace.block_size,
        max_num_seqs=trace.max_num_seqs,
        max_num_batched_tokens=trace.max_num_batched_tokens,
        prefix_caching=trace.prefix_caching,
        voices=trace.voices,
        predictor=predictor,
    )
    asked: list[Asked] = []
    arrivals = list(enumerate(trace.requests))
    with time_limit(_LIMIT_S):
        while arrivals or engine.has_work:
            while arrivals and arrivals[0][1].arrival_s <= engine.clock.now_s():
                number, one = arrivals.pop(0)
                engine.add_request(
                    RequestSpec(
                        prompt_token_ids=one.prompt,
                        params=SamplingParams(max_tokens=trace.num_blocks * trace.block_size, ignore_eos=True),
                        arrival_s=one.arrival_s,
                        priority=one.priority,
                        client=one.client,
                        category=f"category {one.priority}",
                        session=one.client,
                        output_tokens=min(one.max_tokens, one.eos_after) + (longer or {}).get(number, 0),
                    )
                )
                asked.append(_ask(engine.queue.waiting[-1], shares))
            if not engine.has_work:
                engine.clock.sleep_until(arrivals[0][1].arrival_s)
                continue
            asked += [
                Asked(output.request_id, len(output.token_ids), 0.0, (), ended=True)
                for output in engine.step()
                if output.finished
            ]
            asked += [_ask(request, shares) for request in engine.queue.running]
    return asked


def _ask(request: Request, shares: Sequence[float]) -> Asked:
    predicted = request.predicted
    assert predicted is not None
    quantiles = tuple(predicted.quantile(share) for share in shares)
    return Asked(request.id, request.num_output, predicted.mean, quantiles)


def timed(predictor: Predictor, num_requests: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Mean seconds per arrival and end, and per question after a token."""
    engine = make_engine(
        SCHEDULERS.get("chunked_prefill")(), EVICTIONS.get("lru")(), num_blocks=1 << 12, predictor=predictor
    )
    arrival_s = update_s = 0.0
    params = SamplingParams(max_tokens=500, ignore_eos=True)
    for number in range(num_requests):
        request = _build(engine, number, params)
        started_s = clock()
        if predictor.oracle:
            predictor.on_true_length(request, 1 + number % 300)
        at_arrival = predictor.predict(request)
        arrival_s += clock() - started_s
        request.num_known += 1 + number % 300
        started_s = clock()
        _ = predictor.update(request, at_arrival).mean
        update_s += clock() - started_s
        started_s = clock()
        predictor.on_finish(request)
        arrival_s += clock() - started_s
    return arrival_s / num_requests, update_s / num_requests


def _build(engine: Engine, number: int, params: SamplingParams) -> Request:
    spec = RequestSpec(
        prompt_token_ids=[(number * 31 + i) % 1000 for i in range(100)], params=params, category=f"{number % 4}"
    )
    return engine.intake.build(number, spec, arrival_s=0.0)
