"""Random traces: requests, and a machine so small that they run out of everything."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from hypothesis import strategies as st

_MAX_DESCRIBED = 24


class TraceRequest(NamedTuple):
    """A request of a trace. It ends with its `eos_after`-th output token, unless `max_tokens` ends it before."""

    arrival_s: float
    prompt: tuple[int, ...]
    max_tokens: int
    eos_after: int
    priority: int = 0
    client: str = ""
    deadline_s: float | None = None


@dataclass(frozen=True)
class Trace:
    """Requests in the order of arrival, and the limits of the engine that serves them."""

    block_size: int
    num_blocks: int
    max_num_batched_tokens: int
    max_num_seqs: int
    prefix_caching: bool
    requests: tuple[TraceRequest, ...]

    @property
    def eos_after(self) -> dict[int, int]:
        """For each request, the number of the output token that ends it."""
        return {number: request.eos_after for number, request in enumerate(self.requests)}

    @property
    def voices(self) -> dict[int, int]:
        """For each request, the first one with the same prompt. Both get the same tokens, as from a greedy model."""
        first: dict[tuple[int, ...], int] = {}
        return {number: first.setdefault(request.prompt, number) for number, request in enumerate(self.requests)}

    def describe(self) -> str:
        """A line for the machine and a line per request."""
        lines = [
            f"KV cache of {self.num_blocks} blocks of {self.block_size} tokens, prefix caching "
            f"{'on' if self.prefix_caching else 'off'}; at most {self.max_num_batched_tokens} tokens and "
            f"{self.max_num_seqs} requests per step"
        ]
        for number, request in enumerate(self.requests[:_MAX_DESCRIBED]):
            line = f"request {number}: arrives at {request.arrival_s:.3f} s, {len(request.prompt)} prompt tokens"
            shared, other = max(
                ((_num_shared(request.prompt, self.requests[i].prompt), i) for i in range(number)), default=(0, 0)
            )
            line += f" (the first {shared} as request {other})" if shared >= self.block_size else ""
            num_outputs = min(request.max_tokens, request.eos_after)
            line += f", {num_outputs} output tokens of at most {request.max_tokens}"
            line += f", client {request.client!r}, priority {request.priority}"
            lines.append(line + (f", deadline {request.deadline_s:.3f} s" if request.deadline_s is not None else ""))
        more = len(self.requests) - _MAX_DESCRIBED
        return "\n".join([*lines, *([f"and {more} more requests"] if more > 0 else [])])


@st.composite
def traces(draw: st.DrawFn, max_requests: int = 16) -> Trace:
    """Shared prefixes, repeated prompts, bursts, long prompts and caches that cannot hold two of them. Requests follow
    a seed, which is twenty times as fast as drawing each of their numbers; `simpler_traces` makes a failing one small.
    """
    block_size = draw(st.sampled_from([1, 4, 16]))
    num_blocks = draw(st.integers(8, 48))
    capacity = block_size * num_blocks
    rng = random.Random(draw(st.integers(0, 1 << 30)))
    shared = [tuple(rng.randrange(9) for _ in range(rng.randint(1, max(2, capacity // 3)))) for _ in range(3)]
    requests: list[TraceRequest] = []
    for _ in range(draw(st.integers(1, max_requests))):
        prompt = rng.choice(shared) if rng.random() < 0.7 else ()
        prompt += tuple(rng.randrange(9) for _ in range(rng.randint(1, max(1, capacity // 4))))
        if requests and rng.random() < 0.3:
            prompt = rng.choice(requests).prompt
        max_tokens = rng.randint(1, max(1, capacity // 4))
        arrival_s = round(rng.random() * 0.2, 3)
        requests.append(
            TraceRequest(
                arrival_s=arrival_s,
                prompt=prompt[: capacity - 1],
                max_tokens=max_tokens,
                eos_after=rng.randint(1, max_tokens + 3),
                priority=rng.randrange(3),
                client=rng.choice(["a", "b", ""]),
                deadline_s=arrival_s + 0.05 if rng.random() < 0.3 else None,
            )
        )
    return Trace(
        block_size=block_size,
        num_blocks=num_blocks,
        max_num_batched_tokens=draw(st.sampled_from([8, 64, 512])),
        max_num_seqs=draw(st.sampled_from([1, 2, 8, 32])),
        prefix_caching=draw(st.booleans()),
        requests=tuple(sorted(requests, key=lambda request: request.arrival_s)),
    )


def simpler_traces(trace: Trace) -> Iterator[Trace]:
    """Traces that are a little simpler, the boldest cuts first."""
    requests = trace.requests
    size = len(requests) // 2
    while size:
        for start in range(0, len(requests), size):
            if rest := requests[:start] + requests[start + size :]:
                yield replace(trace, requests=rest)
        size //= 2
    if any(request.arrival_s for request in requests):
        yield replace(trace, requests=tuple(request._replace(arrival_s=0.0) for request in requests))
    for index, request in enumerate(requests):
        for simpler in _simpler_requests(request):
            changed = (*requests[:index], simpler, *requests[index + 1 :])
            yield replace(trace, requests=tuple(sorted(changed, key=lambda one: one.arrival_s)))
    if trace.prefix_caching:
        yield replace(trace, prefix_caching=False)


def _simpler_requests(request: TraceRequest) -> Iterator[TraceRequest]:
    num_prompt, num_outputs = len(request.prompt), min(request.max_tokens, request.eos_after)
    for size in sorted({1, num_prompt // 2, num_prompt - 1} - {0, num_prompt}):
        yield request._replace(prompt=request.prompt[:size])
    for size in sorted({1, num_outputs // 2, num_outputs - 1} - {0, num_outputs}):
        yield request._replace(max_tokens=size, eos_after=size + 1)
    plain = request._replace(max_tokens=num_outputs, eos_after=num_outputs + 1, priority=0, client="", deadline_s=None)
    for simpler in (plain, request._replace(arrival_s=0.0)):
        if simpler != request:
            yield simpler


def _num_shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
