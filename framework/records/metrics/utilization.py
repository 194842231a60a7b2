"""How much of the device a run used: bytes and operations that its steps needed, over what it could have done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from framework.interfaces.records import RequestRecord, StepRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCosts:
    """The cost of a model's steps."""

    weight_bytes: int
    """Bytes of the weights that each step reads once."""
    kv_bytes_per_token: int
    """Bytes of the keys and values of one position over all layers."""
    flops_per_token: int
    """Operations of the weight matrices, including the LM head."""
    attention_flops_per_token_pair: int
    """Operations for one query position and one key position over all layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePeaks:
    """The peaks, measured on the device itself."""

    bytes_per_s: float
    flops_per_s: float


def needed_bytes(costs: ModelCosts, requests: Sequence[RequestRecord], steps: Sequence[StepRecord]) -> int:
    """Weights once per step, each position's KV written once, and read once for every token decoded after it.

    Reads of a prompt's own KV while it is computed count nothing: they can stay on chip. Neither do recomputed tokens.
    """
    read = written = 0
    for request in requests:
        prompt, output = request.num_prompt_tokens, request.num_output_tokens
        decoded = max(0, output - 1)  # the first token comes from the prompt's step
        read += decoded * prompt + decoded * (decoded + 1) // 2
        written += max(0, prompt + decoded - request.num_cached_tokens)
    return len(steps) * costs.weight_bytes + (read + written) * costs.kv_bytes_per_token


def needed_flops(costs: ModelCosts, requests: Sequence[RequestRecord]) -> int:
    """Every token that was not cached through the weights once, and against all tokens before it."""
    flops = 0
    for request in requests:
        length = request.num_prompt_tokens + max(0, request.num_output_tokens - 1)
        cached = min(request.num_cached_tokens, length)
        pairs = (length * (length + 1) - cached * (cached + 1)) // 2
        flops += (length - cached) * costs.flops_per_token + pairs * costs.attention_flops_per_token_pair
    return flops


def utilization(
    costs: ModelCosts, peaks: DevicePeaks, requests: Sequence[RequestRecord], steps: Sequence[StepRecord]
) -> tuple[float | None, float | None]:
    """Shares of the device's bandwidth and of its arithmetic over the time that steps ran, gaps between them included.

    None when nothing ran.
    """
    if not steps:
        return None, None
    busy_s = max(step.finish_s for step in steps) - min(step.submit_s for step in steps)
    if busy_s <= 0:
        return None, None
    bandwidth = needed_bytes(costs, requests, steps) / busy_s / peaks.bytes_per_s
    return bandwidth, needed_flops(costs, requests) / busy_s / peaks.flops_per_s
