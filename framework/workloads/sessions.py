"""Conversations: each turn waits for the answer before it, and carries the whole conversation so far."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest, Workload, WorkloadContext
from framework.registry import WORKLOADS
from framework.workloads.arrivals import random_arrivals_s
from framework.workloads.stated_limit import check_max_tokens, stated_limit

Arrival = Literal["all", "poisson", "gamma"]


@WORKLOADS.register("sessions")
class Sessions(Workload):
    """Multi-turn sessions with shared system prompts, think time and tool loops; a closed loop within each session.

    A session opens with one of the system prompts and a message of the user. An answer that calls a tool is followed by
    the tool's result after `tool_time_s`. Any other answer is followed by the user's next message after `think_time_s`.
    Both times are drawn from exponential distributions with these means and count from the end of the answer, so that a
    slower engine gets its requests later. A request is one call of the model. Its prompt is the conversation so far,
    with the real answers.
    """

    def __init__(
        self,
        *,
        num_sessions: int = 8,
        num_requests: int | None = None,
        turns_min: int = 2,
        turns_max: int = 4,
        tool_calls_min: int = 0,
        tool_calls_max: int = 2,
        num_system_prompts: int = 2,
        system_tokens: int = 128,
        user_tokens_min: int = 16,
        user_tokens_max: int = 64,
        tool_tokens_min: int = 16,
        tool_tokens_max: int = 128,
        output_tokens_min: int = 16,
        output_tokens_max: int = 64,
        max_tokens: int | None = None,
        think_time_s: float = 1.0,
        tool_time_s: float = 0.1,
        arrival: Arrival = "poisson",
        rate_per_s: float = 1.0,
        burstiness_cv: float = 1.0,
        temperature: float = 0.0,
        ignore_eos: bool = True,
        seed: int | None = None,
    ) -> None:
        """
        Args:
            num_sessions: how many conversations.
            num_requests: end with this many requests, which may cut the last session; None for all.
            turns_min: fewest messages of the user in a session.
            turns_max: most messages of the user in a session.
            tool_calls_min: fewest tool calls in a row before the answer to a message.
            tool_calls_max: most tool calls in a row before the answer to a message; 0 for none.
            num_system_prompts: distinct system prompts; each session has one of them, all equally likely.
            system_tokens: length of each; 0 for none.
            user_tokens_min: shortest message.
            user_tokens_max: longest message.
            tool_tokens_min: shortest tool result.
            tool_tokens_max: longest tool result.
            output_tokens_min: smallest true output length of a request.
            output_tokens_max: largest true output length of a request.
            max_tokens: what every request states as its limit; None for the model's.
            think_time_s: mean time from an answer to the next message.
            tool_time_s: mean time from a tool call to its result.
            arrival: the arrival of sessions: all (at 0), poisson or gamma.
            rate_per_s: mean sessions per second of poisson and gamma.
            burstiness_cv: gamma only: coefficient of variation of the gaps; 1 is poisson, above 1 comes in bursts.
            temperature: 0 for greedy.
            ignore_eos: generate the drawn number of output tokens whatever the model says; else it may end before.
            seed: None takes the run's seed.
        """
        _check(num_sessions >= 1, "num_sessions", num_sessions, "at least 1")
        _check(num_requests is None or num_requests >= 1, "num_requests", num_requests, "at least 1, or null for all")
        _check(
            num_system_prompts >= 1, "num_system_prompts", num_system_prompts, "at least 1; system_tokens=0 for none"
        )
        _check(system_tokens >= 0, "system_tokens", system_tokens, "at least 0")
        for name, low, high, least in (
            ("turns", turns_min, turns_max, 1),
            ("tool_calls", tool_calls_min, tool_calls_max, 0),
            ("user_tokens", user_tokens_min, user_tokens_max, 1),
            ("tool_tokens", tool_tokens_min, tool_tokens_max, 1),
            ("output_tokens", output_tokens_min, output_tokens_max, 1),
        ):
            _check(low >= least, f"{name}_min", low, f"at least {least}")
            _check(high >= low, f"{name}_max", high, f"at least {name}_min={low}")
        check_max_tokens(max_tokens)
        _check(0 <= think_time_s < float("inf"), "think_time_s", think_time_s, "at least 0")
        _check(0 <= tool_time_s < float("inf"), "tool_time_s", tool_time_s, "at least 0")
        _check(arrival in get_args(Arrival), "arrival", arrival, f"one of {', '.join(get_args(Arrival))}")
        _check(0 < rate_per_s < float("inf"), "rate_per_s", rate_per_s, "above 0")
        _check(0 < burstiness_cv < float("inf"), "burstiness_cv", burstiness_cv, "above 0")
        _check(seed is None or seed >= 0, "seed", seed, "at least 0, or null for the run's seed")
        SamplingParams(temperature=temperature)  # a bad temperature raises here, before a model is loaded
        self.num_sessions, self.num_requests = num_sessions, num_requests
        self.turns, self.tool_calls = (turns_min, turns_max), (tool_calls_min, tool_calls_max)
        self.num_system_prompts, self.system_tokens = num_system_prompts, system_tokens
        self.user_tokens, self.tool_tokens = (user_tokens_min, user_tokens_max), (tool_tokens_min, tool_tokens_max)
        self.output_tokens, self.max_tokens = (output_tokens_min, output_tokens_max), max_tokens
        self.think_time_s, self.tool_time_s = think_time_s, tool_time_s
        self.arrival, self.rate_per_s = arrival, rate_per_s
        self.cv = burstiness_cv if arrival == "gamma" else 1.0
        self.temperature, self.ignore_eos, self.seed = temperature, ignore_eos, seed

    def requests(self, context: WorkloadContext) -> Iterator[TimedRequest]:
        rng = np.random.Generator(np.random.PCG64(self.seed_for(context)))
        n = self.num_sessions
        arrivals_s = np.zeros(n)
        if self.arrival != "all":
            arrivals_s = random_arrivals_s(rng, n, rate_per_s=self.rate_per_s, burstiness_cv=self.cv)
        systems = [_tokens(rng, context, self.system_tokens) for _ in range(self.num_system_prompts)]
        place = 0
        for session, arrival_s in enumerate(arrivals_s.tolist()):
            system = systems[rng.integers(len(systems))]
            for request in self._session(rng, context, session, system, place):
                if place == self.num_requests:
                    return
                yield request if request.after is not None else replace(request, arrival_s=arrival_s)
                place += 1

    def _session(
        self, rng: np.random.Generator, context: WorkloadContext, session: int, system: array[int], place: int
    ) -> Iterator[TimedRequest]:
        """The calls of one session, of which the first takes that place in the workload."""
        first, length = place, 0
        params = SamplingParams(
            temperature=self.temperature,
            max_tokens=stated_limit(self.max_tokens, context),
            ignore_eos=self.ignore_eos,
        )
        for turn in range(rng.integers(*self.turns, endpoint=True)):
            for call in range(1 + rng.integers(*self.tool_calls, endpoint=True)):
                new_tokens = int(rng.integers(*(self.tool_tokens if call else self.user_tokens), endpoint=True))
                ids = _tokens(rng, context, new_tokens)
                output_tokens = int(rng.integers(*self.output_tokens, endpoint=True))
                delay_s = float(rng.exponential(self.tool_time_s if call else self.think_time_s))
                follows = place > first
                ids = ids if follows else system + ids
                origin = f"session {session}, turn {turn}" + (f", tool result {call}" if call else "")
                length += len(ids) + output_tokens
                if length > context.max_model_len:
                    raise ValueError(
                        f"{origin}: the conversation has {length} tokens by then, but a request has at most "
                        f"{context.max_model_len} (max_model_len); lower workload.turns_max, tool_calls_max or the "
                        f"lengths, or raise engine.max_model_len"
                    )
                yield TimedRequest(
                    prompt_token_ids=ids,
                    params=params,
                    output_tokens=output_tokens,
                    client=f"session {session}",
                    session=f"session {session}",
                    after=place - 1 if follows else None,
                    delay_s=delay_s if follows else 0.0,
                    origin=origin,
                )
                place += 1


def _tokens(rng: np.random.Generator, context: WorkloadContext, count: int) -> array[int]:
    return array("i", rng.integers(context.vocab_size, size=count, dtype=np.intc).tobytes())


def _check(holds: bool, name: str, value: object, limit: str) -> None:
    if not holds:
        raise ValueError(f"workload.{name}={value!r} must be {limit}")
