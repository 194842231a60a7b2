"""Triton kernels run on the GPU where there is one, else under the interpreter on the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.triton_interpreter import HAS_TRITON

if not HAS_TRITON:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
