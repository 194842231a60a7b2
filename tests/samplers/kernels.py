"""Samplers as they are on a GPU; Triton's interpreter runs their kernels on a CPU."""

from __future__ import annotations

from framework.interfaces.sampler import Sampler


def as_on_a_gpu(sampler: Sampler) -> None:
    """Kernels where there are some, else the same operations for every batch."""
    if type(sampler).__name__ in ("Full", "Gumbel", "Greedy"):
        sampler.takes_model_dtype = sampler.checks_finite = True
    elif hasattr(sampler, "same_operations"):
        sampler.same_operations = True
