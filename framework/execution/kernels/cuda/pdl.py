"""Programmatic dependent launch (Hopper and newer): a kernel starts while the kernel before it still runs.

It may read at once what no recent kernel writes, such as weights or the positions of the step. It waits before it reads
anything else. So the kernel before hides the launch latency and the first read of the weights (CUDA programming guide,
"Programmatic Dependent Launch and Synchronization"). Every kernel here waits before it ends, which keeps the order of
any number of kernels.
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
"""False launches kernels one after the other. This is for measuring what the overlap saves."""


@functools.cache
def _available() -> bool:
    return not interpreted() and torch.cuda.get_device_capability() >= _MIN_CAPABILITY


def launch_options() -> dict[str, Any]:
    """Keyword arguments for the launch of a kernel that has a `PDL` parameter."""
    return {"PDL": True, "launch_pdl": True} if enabled and _available() else {"PDL": False}


@triton.jit
def let_next_start(PDL: tl.constexpr):
    """Allow the launch of the next kernel."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait_for_previous(PDL: tl.constexpr):
    """Wait until everything that earlier kernels wrote may be read."""
    if PDL:
        tl.extra.cuda.gdc_wait()
