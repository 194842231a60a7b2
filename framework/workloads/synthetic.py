"""Random token ids with chosen lengths, arrivals and prefix sharing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np

from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest, Workload, WorkloadContext
from framework.registry import WORKLOADS
from framework.workloads.arrivals import random_arrivals_s
from framework.workloads.stated_limit import check_max_concurrency, check_max_tokens, stated_limit

Arrival = Literal["all", "poisson", "gamma"]


@WORKLOADS.register("synthetic")
class Synthetic(Workload):
    """Random prompts and output lengths, uniform in closed ranges, arriving all at once or as a random process.

    Everything is drawn from one numpy PCG64 generator, in this order: prompt lengths, output lengths, the gaps between
    arrivals (poisson and gamma only), which prompts share the prefix, the prefix, then the prompts one after the
    other. Token ids are uniform below the vocabulary size. Another seed gives other lengths, arrivals and tokens.
    """

    def __init__(
        self,
        *,
        num_requests: int = 32,
        prompt_tokens_min: int = 16,
        prompt_tokens_max: int = 256,
        output_tokens_min: int = 16,
        output_tokens_max: int = 128,
        max_tokens: int | None = None,
        arrival: Arrival = "all",
        rate_per_s: float = 1.0,
        max_concurrency: int | None = None,
        burstiness_cv: float = 1.0,
        shared_prefix_tokens: int = 0,
        shared_prefix_share: float = 1.0,
        temperature: float = 0.0,
        ignore_eos: bool = True,
        seed: int | None = None,
    ) -> None:
        """
        Args:
            num_requests: number of requests.
            prompt_tokens_min: shortest prompt, the shared prefix not counted.
            prompt_tokens_max: longest prompt, the shared prefix not counted.
            output_tokens_min: smallest true output length.
            output_tokens_max: largest true output length.
            max_tokens: what every request states as its limit; None for the model's.
            arrival: all (at time 0), poisson or gamma; the first request of a process arrives after one gap.
            rate_per_s: mean requests per second of poisson and gamma.
            max_concurrency: requests in the engine at once; a further one is sent when one of them has ended, and its
                times count from there (a closed load). None sends each request when it arrives.
            burstiness_cv: gamma only: coefficient of variation of the gaps; 1 is poisson, above 1 comes in bursts.
            shared_prefix_tokens: length of one prefix put in front of prompts.
            shared_prefix_share: probability that a prompt begins with it.
            temperature: 0 for greedy.
            ignore_eos: generate the drawn number of output tokens whatever the model says; else it may end before.
            seed: None takes the run's seed.
        """
        _check(num_requests >= 1, "num_requests", num_requests, "at least 1")
        _check(prompt_tokens_min >= 1, "prompt_tokens_min", prompt_tokens_min, "at least 1")
        _check(prompt_tokens_max >= prompt_tokens_min, "prompt_tokens_max", prompt_tokens_max, "at least the minimum")
        _check(output_tokens_min >= 1, "output_tokens_min", output_tokens_min, "at least 1")
        _check(output_tokens_max >= output_tokens_min, "output_tokens_max", output_tokens_max, "at least the minimum")
        check_max_tokens(max_tokens)
        _check(arrival in get_args(Arrival), "arrival", arrival, f"one of {', '.join(get_args(Arrival))}")
        _check(0 < rate_per_s < float("inf"), "rate_per_s", rate_per_s, "above 0")
        check_max_concurrency(max_concurrency)
        _check(0 < burstiness_cv < float("inf"), "burstiness_cv", burstiness_cv, "above 0")
        _check(shared_prefix_tokens >= 0, "shared_prefix_tokens", shared_prefix_tokens, "at least 0")
        _check(0 <= shared_prefix_share <= 1, "shared_prefix_share", shared_prefix_share, "in [0, 1]")
        _check(seed is None or seed >= 0, "seed", seed, "at least 0, or null for the run's seed")
        self.num_requests = num_requests
        self.prompt_tokens = (prompt_tokens_min, prompt_tokens_max)
        self.output_tokens = (output_tokens_min, output_tokens_max)
        self.max_tokens = max_tokens
        self.arrival = arrival
        self.rate_per_s = rate_per_s
        self.cv = burstiness_cv if arrival == "gamma" else 1.0
        self.shared_prefix_tokens = shared_prefix_tokens
        self.shared_prefix_share = shared_prefix_share
        self.temperature = temperature
        self.ignore_eos = ignore_eos
        self.seed = seed
        SamplingParams(temperature=temperature)  # a bad temperature raises here, before a model is loaded

    def requests(self, context: WorkloadContext) -> Iterator[TimedRequest]:
        rng = np.random.Generator(np.random.PCG64(self.seed_for(context)))
        n = self.num_requests
        prompt_lens = rng.integers(*self.prompt_tokens, size=n, endpoint=True)
        output_lens = rng.integers(*self.output_tokens, size=n, endpoint=True)
        arrivals_s = np.zeros(n)
        if self.arrival != "all":
            arrivals_s = random_arrivals_s(rng, n, rate_per_s=self.rate_per_s, burstiness_cv=self.cv)
        shares = rng.random(n) < self.shared_prefix_share
        prefix = rng.integers(context.vocab_size, size=self.shared_prefix_tokens).tolist()
        params = SamplingParams(
            temperature=self.temperature,
            max_tokens=stated_limit(self.max_tokens, context),
            ignore_eos=self.ignore_eos,
        )
        for i in range(n):
            own = rng.integers(context.vocab_size, size=prompt_lens[i]).tolist()
            yield TimedRequest(
                arrival_s=float(arrivals_s[i]),
                prompt_token_ids=prefix + own if shares[i] else own,
                params=params,
                output_tokens=int(output_lens[i]),
            )


def _check(holds: bool, name: str, value: object, limit: str) -> None:
    if not holds:
        raise ValueError(f"workload.{name}={value!r} must be {limit}")
