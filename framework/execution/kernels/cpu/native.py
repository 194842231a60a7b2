"""The library that is loaded, and the types of its functions. Nothing is compiled or loaded before the first call."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from pathlib import Path

import torch

from framework.execution.kernels import OWN
from framework.execution.kernels.cpu.build import BuildError, build_library

_POINTER, _INT64, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
_DTYPES = {torch.float32: 0, torch.bfloat16: 1}  # as `DType` in src/vec.h
SUPPORTED_DTYPES = frozenset(_DTYPES)

# In the order of the parameters in src/*.cpp.
_ARGUMENTS: dict[str, list[type]] = {
    "servelab_packed_elements": [_INT64, _INT64, _INT],
    "servelab_pack_weight": [_POINTER, _INT64, _INT, _POINTER, _INT64, _INT64, _INT],
    "servelab_linear": [
        *(_POINTER, _INT64, _INT),  # x, stride, dtype
        *(_POINTER, _INT, _POINTER),  # weight, dtype, bias
        *(_POINTER, _INT64),  # out, stride
        *(_INT64, _INT64, _INT64, _INT),  # T, I, O, threads
    ],
    "servelab_block_panel_bytes": [_INT, _INT64, _INT64],
    "servelab_pack_blocks": [_INT, _POINTER, _INT64, _POINTER, _INT64, _INT64, _INT],
    "servelab_block_linear": [
        *(_POINTER, _INT64, _INT),  # x, stride, dtype
        *(_POINTER, _INT, _POINTER),  # pieces, their number, bias
        *(_POINTER, _INT64),  # out, stride
        *(_INT64, _INT64, _INT),  # T, I, threads
    ],
    "servelab_block_rows": [_INT, _POINTER, _INT64, _POINTER, _POINTER, _INT, _INT64, _INT64, _INT],
    "servelab_paged_attention": [
        *(_POINTER, _INT64, _POINTER, _INT64, _POINTER, _INT64, _INT),  # q, k, v, each with its stride; dtype
        *(_POINTER, _POINTER, _INT),  # out, cache, cache dtype
        *(_POINTER, _POINTER, _POINTER, _POINTER, _INT64),  # slots, query starts, lengths, block table, stride
        *(_INT64, _INT64, _INT64, _INT64, _INT64, _FLOAT),  # R, N, M, H, block size, scale
        *(_INT64, _FLOAT, _INT),  # window, soft cap, threads
    ],
    "servelab_rms_norm": [_POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT64, _INT64, _FLOAT, _INT],
    "servelab_silu_and_mul": [_POINTER, _POINTER, _INT, _INT64, _INT64, _INT],
    "servelab_rotate": [_POINTER, _INT64, _POINTER, _POINTER, _INT, _INT64, _INT64, _INT64, _INT],
}

_lock = threading.Lock()


def unavailable_reason() -> str | None:
    """Why the C++ kernels cannot be used here, with a remedy. None if they can. The first call may compile them."""
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


def library() -> ctypes.CDLL:
    """The library. Call this only if `unavailable_reason()` is None.

    Raises:
        RuntimeError: with the reason, if there is one.
    """
    loaded = _load()
    if isinstance(loaded, str):
        raise RuntimeError(loaded)
    return loaded


def version() -> str:
    """The name of the library in the record. It names the project and the build of the sources."""
    return f"{OWN} C++ kernels (build {Path(library()._name).stem})"


def dtype_code(dtype: torch.dtype) -> int:
    """The number that stands for `dtype`, one of `SUPPORTED_DTYPES`, in C++."""
    return _DTYPES[dtype]


def _load() -> ctypes.CDLL | str:
    with _lock:  # one build, however many threads ask
        return _load_once()


@functools.cache
def _load_once() -> ctypes.CDLL | str:
    loaded = _try_to_load()
    if isinstance(loaded, str):
        print(f"warning: slow CPU kernels: {loaded}", file=sys.stderr)
    return loaded


def _try_to_load() -> ctypes.CDLL | str:
    try:
        path = build_library()
    except BuildError as error:
        return str(error)
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:  # GOMP_parallel is looked up in what torch has loaded
        return (
            f"{path} cannot be loaded ({error}); the kernels need a PyTorch built with OpenMP, and a cache folder "
            f"(SERVELAB_CACHE) from which code may be run"
        )
    for name, arguments in _ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes = arguments
        function.restype = None
    for name in ("servelab_packed_elements", "servelab_block_panel_bytes"):
        getattr(loaded, name).restype = _INT64
    return loaded
