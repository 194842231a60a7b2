"""Picking one token per row: the argmax, and the argmax under Gumbel noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_ARGMAX_CHUNKS = (256, 128, 64)
_CPU_BLOCK_TOKENS = 1 << 18
"""Logits handled at once on a CPU (1 MiB in float32): temporaries stay in the core's cache and off fresh pages."""


def argmax_rows(scores_RV: Tensor) -> Tensor:
    """The first index of each row's maximum, [R] int64.

    `Tensor.argmax` takes 2.7 ms for 32 x 49,152 on one core where `amax` takes 0.2 ms, so on a CPU the maximum of each
    chunk comes first and only one chunk per row is searched.
    """
    num_rows, vocab_size = scores_RV.shape
    chunk = next((size for size in _ARGMAX_CHUNKS if vocab_size % size == 0), 0)
    if scores_RV.is_cuda or not chunk:
        return scores_RV.argmax(-1)
    chunks_RCc = scores_RV.reshape(num_rows, vocab_size // chunk, chunk)
    best_R1 = chunks_RCc.amax(-1).argmax(-1, keepdim=True)
    inside_R1 = chunks_RCc.take_along_dim(best_R1.unsqueeze(-1), 1).squeeze(1).argmax(-1, keepdim=True)
    return (best_R1 * chunk + inside_R1).squeeze(1)


def best_rows(scores_RV: Tensor, first_token: int) -> tuple[Tensor, Tensor]:
    """Each row's maximum in float32 and its first index counted from `first_token`, int64, both [R]."""
    at_R = argmax_rows(scores_RV)
    return scores_RV.gather(1, at_R.unsqueeze(1)).squeeze(1).float(), at_R + first_token


def gumbel_argmax(logits_RV: Tensor, seed_R: Tensor, position_R: Tensor, weight_R1: Tensor | None = None) -> Tensor:
    """A sample of `softmax(logits)` for each row, [R] int64: argmax(logits - log E), E ~ Exp(1) by (seed, position).

    This is the exponential race argmax(softmax(logits) / E) in log space, where no normalisation is needed and nothing
    underflows. `weight_R1` scales the noise: 0 makes a row greedy, 1 samples it. `logits_RV` is overwritten.
    """
    import torch

    picked = [argmax_rows(noisy_RV) for noisy_RV in _noisy(logits_RV, seed_R, position_R, weight_R1, 0)]
    return picked[0] if len(picked) == 1 else torch.cat(picked)


def gumbel_best(
    logits_RW: Tensor, seed_R: Tensor, position_R: Tensor, weight_R1: Tensor | None, first_token: int
) -> tuple[Tensor, Tensor]:
    """`gumbel_argmax` over W tokens of a larger vocabulary: the best score, [R] float32, and its token, [R] int64."""
    import torch

    blocks = _noisy(logits_RW, seed_R, position_R, weight_R1, first_token)
    scores, tokens = zip(*(best_rows(noisy_RW, first_token) for noisy_RW in blocks), strict=True)
    return torch.cat(scores), torch.cat(tokens)


def _noisy(
    logits_RV: Tensor, seed_R: Tensor, position_R: Tensor, weight_R1: Tensor | None, first_token: int
) -> Iterator[Tensor]:
    """Blocks of rows, the noise taken off in place."""
    from framework.toolkit.samplers.noise import exponential_noise

    num_rows, vocab_size = logits_RV.shape
    block = num_rows if logits_RV.is_cuda else max(1, _CPU_BLOCK_TOKENS // vocab_size)
    for start in range(0, num_rows, block):
        rows = slice(start, start + block)
        noise_RV = exponential_noise(seed_R[rows], position_R[rows], vocab_size, first_token).log_()
        if weight_R1 is not None:
            noise_RV *= weight_R1[rows]
        yield logits_RV[rows].sub_(noise_RV)
