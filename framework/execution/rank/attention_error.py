"""How far the output of an attention backend is from exact attention, on random numbers in the shapes of this run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from framework.engine.blame import blaming
from framework.execution.rank.kv_error import cached_tokens, one_row
from framework.interfaces.attention import AttentionBackend
from framework.interfaces.errors import PluginError

MAX_ROUNDING = 0.15
"""Above it a backend is not exact. Rounding to bfloat16 gives 1 %, and a cache of 8 bits 5 %."""
_NUM_TOKENS = {"cpu": 512, "cuda": 2048}
_NUM_COMPARED = 128


@torch.inference_mode()
def attention_error(attention: AttentionBackend, kv_caches: Sequence[Tensor]) -> float | None:
    """||got - exact|| / ||exact|| over the last 128 tokens of a prompt that is computed as a chunk and a decode row.

    A window is found if it is shorter than the prompt, which has 512 tokens on a CPU and 2,048 on a GPU, or as many as
    cache and limits allow. Overwrites the first blocks of layer 0. None if not even two tokens fit, or if the model has
    windows or caps scores.

    Raises:
        PluginError: the backend raised.
    """
    spec = attention.spec
    if spec.softcap is not None or any(window is not None for window in spec.windows or ()):
        return None  # the model's own attention is not what this compares with
    room = min(cached_tokens(attention, kv_caches[0]), spec.max_model_len, spec.max_num_batched_tokens + 1)
    num = min(_NUM_TOKENS[spec.device.type], room)
    if num < 2:
        return None
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(num, heads, spec.head_size, generator=generator).to(spec.device, spec.dtype)
        for heads in (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)
    )
    outputs = []
    for start, stop in ((0, num - 1), (num - 1, num)):
        part = slice(start, stop)
        with blaming():
            metadata = attention.plan(one_row(start, stop, spec.block_size, spec.device))
            outputs.append(attention.forward(0, q[part], k[part], v[part], kv_caches[0], metadata))
    if any(out.shape[1:] != q.shape[1:] for out in outputs):
        return None  # the first step says so
    first = max(0, num - _NUM_COMPARED)
    exact = _exact(q[first:], k, v, spec.scale)
    got = torch.cat(outputs)[first:].float()
    return float((got - exact).norm() / exact.norm())


def check_exact(attention: AttentionBackend, name: str, error: float | None) -> None:
    """Refuse an approximation that does not say that it is one.

    Raises:
        PluginError: naming the backend and what to do.
    """
    if attention.exact and error is not None and not error <= MAX_ROUNDING:
        raise PluginError(
            f"attention={name}: its output is {error:.0%} off exact attention (norm of the difference, random inputs),"
            f" and up to {MAX_ROUNDING:.0%} is rounding; correct {type(attention).__name__}, or set `exact = False` in "
            f"it if it approximates on purpose: then each record says so and measures the quality",
            is_named=True,
        )


def _exact(q_CNH: Tensor, k_LMH: Tensor, v_LMH: Tensor, scale: float) -> Tensor:
    """Causal attention of the last C of L tokens in float32."""
    num, length, group = len(q_CNH), len(k_LMH), q_CNH.shape[1] // k_LMH.shape[1]
    k_LNH, v_LNH = (x.float().repeat_interleave(group, dim=1) for x in (k_LMH, v_LMH))
    scores_NCL = torch.einsum("cnh,lnh->ncl", q_CNH.float(), k_LNH) * scale
    position_C = torch.arange(length - num, length, device=q_CNH.device)
    hidden_CL = torch.arange(length, device=q_CNH.device) > position_C[:, None]
    return torch.einsum("ncl,lnh->cnh", scores_NCL.masked_fill(hidden_CL, -torch.inf).softmax(-1), v_LNH)
