"""Which attention backend runs: the one asked for, or for `auto` the first that this machine can run."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from framework.interfaces.attention import AttentionBackend, AttentionSpec
from framework.interfaces.errors import IncompatibleError
from framework.registry import ATTENTIONS

_PREFERENCE = {"cpu": ("paged_cpu", "sdpa"), "cuda": ("triton", "flash", "sdpa")}
"""By measured speed, fastest first; see experiments/cpu_baseline/ and experiments/gpu_speed/."""


def choose_attention(cfg: DictConfig, spec: AttentionSpec) -> tuple[AttentionBackend, str, dict[str, str]]:
    """The backend, its name, and why `auto` passed over faster ones.

    Raises:
        IncompatibleError: the backend that was asked for cannot run here.
    """
    if cfg.name != "auto":
        reason = ATTENTIONS.get(cfg.name).unsupported_reason(spec)
        if reason is not None:
            asked = f"attention={cfg.name}"
            raise IncompatibleError(reason if reason.startswith(asked) else f"{asked}: {reason}")
        return ATTENTIONS.build(cfg, spec), cfg.name, {}
    passed_over: dict[str, str] = {}
    for name in _PREFERENCE[spec.device.type]:
        reason = ATTENTIONS.get(name).unsupported_reason(spec)
        if reason is None:
            choice: dict[str, Any] = {"name": name}
            return ATTENTIONS.build(choice, spec), name, passed_over
        passed_over[name] = reason
    raise IncompatibleError(f"attention=auto: nothing runs on {spec.device}: {passed_over}")
