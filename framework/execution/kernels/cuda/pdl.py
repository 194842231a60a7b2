"""Programmatic dependent launch (Hopper and newer): a kernel starts while the one before it still runs.

It may read what no recent kernel writes (weights, positions of the step) at once, and waits before it reads the rest.
So launch latency and the first read of the weights hide behind the kernel before (CUDA programming guide, "Programmatic
Dependent Launch and Synchronization"). Every kernel here waits before it ends, so order is kept across any number.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl

from framework.execution.kernels.cuda.interpreter import interpreted

_MIN_CAPABILITY = (9, 0)
enabled = True
"""False launches kernels one after the other, to measure what overlapping them brings."""


@functools.cache
def _available() -> bool:
    return not interpreted() and torch.cuda.get_device_capability() >= _MIN_CAPABILITY


def launch_options() -> dict[str, Any]:
    """Keyword arguments for a kernel with a `PDL` parameter."""
    return {"PDL": True, "launch_pdl": True} if enabled and _available() else {"PDL": False}


@triton.jit
def let_next_start(PDL: tl.constexpr):
    """The kernel after this one may be launched."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait_for_previous(PDL: tl.constexpr):
    """What the kernels before wrote may be read."""
    if PDL:
        tl.extra.cuda.gdc_wait()
