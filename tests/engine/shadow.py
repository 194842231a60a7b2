"""The shadow KV memory of `framework.conformance`, and a shorthand for sampling parameters."""

from __future__ import annotations

from framework.conformance.kit.invariants import check_invariants
from framework.conformance.kit.shadow import EOS, VOCAB, ShadowExecutor, VirtualClock, make_engine, token_at
from framework.interfaces.sampling_params import SamplingParams

__all__ = ["EOS", "VOCAB", "ShadowExecutor", "VirtualClock", "check_invariants", "make_engine", "params", "token_at"]


def params(max_tokens: int, **more: object) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, **more)  # type: ignore[arg-type]
