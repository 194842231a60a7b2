"""Random arrival processes, shared by the workloads that draw or replace arrival times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_SECONDS = 1e9
"""The largest time or delay in a file: 30 years, which is still exact to a microsecond."""


def random_arrivals_s(
    rng: np.random.Generator, num_requests: int, *, rate_per_s: float, burstiness_cv: float
) -> NDArray[np.float64]:
    """Arrival times of a renewal process whose gaps are gamma distributed; the first one comes after one gap.

    Args:
        rate_per_s: mean requests per second.
        burstiness_cv: coefficient of variation of the gaps; 1 is a Poisson process, above 1 comes in bursts.
    """
    # Gaps of mean 1/rate and coefficient of variation cv: gamma with shape 1/cv^2 (cv 1: exponential).
    shape = 1 / burstiness_cv**2
    return np.cumsum(rng.gamma(shape, burstiness_cv**2 / rate_per_s, size=num_requests))
