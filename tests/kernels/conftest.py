"""The C++ kernels are built once for the session; without a compiler their tests are skipped with the reason."""

import pytest
import torch

from framework.execution.kernels.cpu import native


@pytest.fixture(scope="session")
def native_kernels() -> None:
    if reason := native.unavailable_reason():
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
