"""A GPU's limits, measured in some milliseconds: what memory and matrix units reach at their best."""

from __future__ import annotations

import torch

from framework.records.metrics.utilization import DevicePeaks

_COPY_BYTES = 1 << 30
_MATRIX_SIZE = 8192
_REPEATS = 4


def measure_peaks(device: torch.device, dtype: torch.dtype) -> DevicePeaks | None:
    """Bandwidth of a copy (read and write) and rate of a large matrix product of random numbers; None on a CPU."""
    if device.type != "cuda":
        return None
    source = torch.empty(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    matrix = torch.randn(_MATRIX_SIZE, _MATRIX_SIZE, dtype=dtype, device=device)
    copy_s = _seconds(lambda: target.copy_(source))
    product_s = _seconds(lambda: matrix @ matrix)
    return DevicePeaks(bytes_per_s=2 * _COPY_BYTES / copy_s, flops_per_s=2 * _MATRIX_SIZE**3 / product_s)


def _seconds(run: object) -> float:
    assert callable(run)
    run()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(_REPEATS):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / _REPEATS
