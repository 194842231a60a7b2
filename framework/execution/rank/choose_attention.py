"""Which attention backend runs: the one asked for or, for `auto`, the first one that this machine can run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from framework.execution.device.sizes import preferred_block_size
from framework.interfaces.attention import AttentionBackend, AttentionSpec
from framework.interfaces.errors import IncompatibleError
from framework.registry import ATTENTIONS

_PREFERENCE = {"cpu": ("paged_cpu", "sdpa"), "cuda": ("triton", "flash", "sdpa")}
"""Backends by measured speed, the fastest first: experiments/cpu_baseline/ and experiments/gpu_speed/."""


def choose_attention(
    choice: Mapping[Any, Any], spec: AttentionSpec, block_size: int | None
) -> tuple[AttentionBackend, str, dict[str, str]]:
    """The backend, its name, and why `auto` passed over faster ones. Its own `spec` has the block size that it got.

    Args:
        choice: the name and the parameters that were asked for.
        spec: but for the block size.
        block_size: None for the one that the backend prefers.

    Raises:
        IncompatibleError: the backend that was asked for cannot run here.
    """
    if choice["name"] != "auto":
        spec = _with_blocks(choice, spec, block_size)
        reason = _reason(choice["name"], spec)
        if reason is not None:
            asked = f"attention={choice['name']}"
            raise IncompatibleError(reason if reason.startswith(asked) else f"{asked}: {reason}")
        return ATTENTIONS.build(choice, spec), choice["name"], {}
    passed_over: dict[str, str] = {}
    for name in _PREFERENCE[spec.device.type]:
        choice = {"name": name}
        spec = _with_blocks(choice, spec, block_size)
        reason = _reason(name, spec)
        if reason is None:
            return ATTENTIONS.build(choice, spec), name, passed_over
        passed_over[name] = reason
    raise IncompatibleError(f"attention=auto: nothing runs on {spec.device}: {passed_over}")


def _reason(name: str, spec: AttentionSpec) -> str | None:
    backend: type[AttentionBackend] = ATTENTIONS.get(name)
    return backend.lacks(spec) or backend.unsupported_reason(spec)


def _with_blocks(choice: Mapping[Any, Any], spec: AttentionSpec, block_size: int | None) -> AttentionSpec:
    size = block_size or preferred_block_size(choice, spec.device.type)[0]
    return dataclasses.replace(spec, block_size=size)
