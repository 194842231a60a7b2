"""Several polite clients and a greedy one that sends bursts of long prompts: what fair schedulers are for."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest, Workload, WorkloadContext
from framework.registry import WORKLOADS
from framework.workloads.arrivals import random_arrivals_s
from framework.workloads.stated_limit import check_max_tokens, stated_limit

GREEDY = "greedy"


@WORKLOADS.register("clients")
class Clients(Workload):
    """The clients "polite 1", "polite 2", ... send single requests. These are one Poisson process, and each request
    belongs to a random client. "greedy" sends bursts, which are a Poisson process of their own.

    Lengths are uniform in closed ranges; prompts share nothing. Drawn from one numpy PCG64 generator, in this order:
    the polite arrivals, their clients, the gaps between bursts, then prompt and output lengths, the polite ones first.
    """

    def __init__(
        self,
        *,
        num_requests: int = 400,
        rate_per_s: float = 10.0,
        num_polite: int = 4,
        prompt_tokens_min: int = 100,
        prompt_tokens_max: int = 1000,
        output_tokens_min: int = 50,
        output_tokens_max: int = 300,
        greedy_share: float = 0.2,
        greedy_burst: int = 20,
        greedy_prompt_tokens_min: int = 2000,
        greedy_prompt_tokens_max: int = 6000,
        greedy_output_tokens_min: int = 100,
        greedy_output_tokens_max: int = 400,
        greedy_priority: int = 0,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> None:
        """
        Args:
            num_requests: number of requests of all clients together.
            rate_per_s: mean requests per second, of all clients together.
            num_polite: how many polite clients.
            prompt_tokens_min: shortest prompt of a polite client.
            prompt_tokens_max: longest prompt of a polite client.
            output_tokens_min: smallest true output length of a polite client.
            output_tokens_max: largest true output length of a polite client.
            greedy_share: share of the requests that the greedy client sends; 0 for none.
            greedy_burst: requests of a burst, which arrive at once.
            greedy_prompt_tokens_min: shortest prompt of the greedy client.
            greedy_prompt_tokens_max: longest prompt of the greedy client.
            greedy_output_tokens_min: smallest true output length of the greedy client.
            greedy_output_tokens_max: largest true output length of the greedy client.
            greedy_priority: of its requests; the others have 0, and lower is more urgent.
            max_tokens: what every request states as its limit; None for the model's.
            temperature: 0 for greedy sampling.
            seed: None takes the run's seed.
        """
        _check(num_requests >= 1, "num_requests", num_requests, "at least 1")
        _check(0 < rate_per_s < math.inf, "rate_per_s", rate_per_s, "above 0")
        _check(num_polite >= 1, "num_polite", num_polite, "at least 1")
        _check(0 <= greedy_share < 1, "greedy_share", greedy_share, "in [0, 1)")
        _check(greedy_burst >= 1, "greedy_burst", greedy_burst, "at least 1")
        self.lengths = (
            (prompt_tokens_min, prompt_tokens_max),
            (output_tokens_min, output_tokens_max),
            (greedy_prompt_tokens_min, greedy_prompt_tokens_max),
            (greedy_output_tokens_min, greedy_output_tokens_max),
        )
        names = ("prompt_tokens", "output_tokens", "greedy_prompt_tokens", "greedy_output_tokens")
        for name, (low, high) in zip(names, self.lengths, strict=True):
            _check(low >= 1, f"{name}_min", low, "at least 1")
            _check(high >= low, f"{name}_max", high, f"at least {name}_min={low}")
        check_max_tokens(max_tokens)
        _check(seed is None or seed >= 0, "seed", seed, "at least 0, or null for the run's seed")
        SamplingParams(temperature=temperature)  # a bad temperature raises here, before a model is loaded
        self.num_requests, self.rate_per_s, self.num_polite = num_requests, rate_per_s, num_polite
        self.greedy_share, self.greedy_burst, self.greedy_priority = greedy_share, greedy_burst, greedy_priority
        self.max_tokens, self.temperature, self.seed = max_tokens, temperature, seed

    def requests(self, context: WorkloadContext) -> Iterator[TimedRequest]:
        rng = np.random.Generator(np.random.PCG64(self.seed_for(context)))
        num_greedy = min(round(self.greedy_share * self.num_requests), self.num_requests - 1)
        num = self.num_requests - num_greedy
        arrivals_s = random_arrivals_s(rng, num, rate_per_s=self.rate_per_s * (1 - self.greedy_share), burstiness_cv=1)
        clients = [f"polite {i}" for i in rng.integers(1, self.num_polite, size=num, endpoint=True).tolist()]
        clients += [GREEDY] * num_greedy
        arrivals_s = np.concatenate([arrivals_s, self._bursts_s(rng, num_greedy)])
        prompt, output, greedy_prompt, greedy_output = self.lengths
        prompts = [*_draw(rng, prompt, num), *_draw(rng, greedy_prompt, num_greedy)]
        outputs = [*_draw(rng, output, num), *_draw(rng, greedy_output, num_greedy)]
        params = SamplingParams(
            temperature=self.temperature, max_tokens=stated_limit(self.max_tokens, context), ignore_eos=True
        )
        for i in np.argsort(arrivals_s, kind="stable").tolist():
            yield TimedRequest(
                arrival_s=float(arrivals_s[i]),
                num_prompt_tokens=prompts[i],
                prompt_keys=array("q"),
                key_tokens=1,
                client=clients[i],
                priority=self.greedy_priority if clients[i] == GREEDY else 0,
                params=params,
                output_tokens=outputs[i],
            )

    def _bursts_s(self, rng: np.random.Generator, num_greedy: int) -> NDArray[np.float64]:
        if not num_greedy:
            return np.zeros(0)
        num_bursts = -(-num_greedy // self.greedy_burst)
        bursts_per_s = self.rate_per_s * self.greedy_share / self.greedy_burst
        starts_s = random_arrivals_s(rng, num_bursts, rate_per_s=bursts_per_s, burstiness_cv=1)
        return np.repeat(starts_s, self.greedy_burst)[:num_greedy]


def _draw(rng: np.random.Generator, limits: tuple[int, int], num: int) -> list[int]:
    return [int(length) for length in rng.integers(*limits, size=num, endpoint=True)]


def _check(holds: bool, name: str, value: object, limit: str) -> None:
    if not holds:
        raise ValueError(f"workload.{name}={value!r} must be {limit}")
