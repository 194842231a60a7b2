"""Arrays sent in one copy arrive as they were, each where a kernel can take it as aligned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from framework.execution.step.staging import Staging


class Event:
    """An event of a stream that has always finished."""

    def synchronize(self) -> None: ...

    def record(self) -> None: ...


@pytest.fixture
def staging() -> Staging:
    """Staging with buffers as for a GPU, on the CPU."""
    staging = Staging(torch.device("cpu"))
    staging._buffers = [torch.empty(64, dtype=torch.int64) for _ in range(4)]
    staging._events = [Event() for _ in range(4)]  # type: ignore[misc]
    return staging


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 0, 5), (2, 4), (7,), (9, 9, 9, 1)])
def test_values_and_alignment(staging: Staging, sizes: tuple[int, ...]) -> None:
    for _ in range(5):  # each buffer, and the first one again
        arrays = [np.arange(size) * 10 + index for index, size in enumerate(sizes)]
        sent = staging.send(arrays)
        assert [tensor.tolist() for tensor in sent] == [array.tolist() for array in arrays]
        base = sent[0].data_ptr()
        assert all((tensor.data_ptr() - base) % 16 == 0 for tensor in sent if len(tensor))
