"""Top-k and min-p. Each finds a row's threshold and bans what lies below it, so equal tokens are treated alike.

A filter touches only the rows that ask for it. The order is min-p, top-k, top-p (renormalised), as in vLLM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.interfaces.sampler import SamplingParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(slots=True)
class MinP:
    """Ban tokens less likely than `min_p` times the most likely one (Nguyen et al., arXiv 2407.01082)."""

    row_F: Tensor | None
    """The rows concerned; None for all"""
    log_min_F1: Tensor

    @classmethod
    def of(cls, params: Sequence[SamplingParams], device: torch.device) -> MinP | None:
        import torch

        rows = [row for row, p in enumerate(params) if p.min_p > 0 and not p.greedy]
        logs = [[math.log(params[row].min_p)] for row in rows]
        return cls(row_index(rows, params, device), torch.tensor(logs, device=device)) if rows else None

    def apply(self, logits_RV: Tensor) -> None:
        logits_FV = take(logits_RV, self.row_F)
        ban(logits_RV, self.row_F, logits_FV, logits_FV < logits_FV.amax(-1, keepdim=True) + self.log_min_F1)


@dataclass(slots=True)
class TopK:
    """Ban all but the k most likely tokens and those equal to the k-th (Fan et al., arXiv 1805.04833)."""

    row_F: Tensor | None
    k_max: int
    last_F1: Tensor
    """[F, 1] int64: k - 1"""

    @classmethod
    def of(cls, params: Sequence[SamplingParams], vocab_size: int, device: torch.device) -> TopK | None:
        import torch

        rows = [row for row, p in enumerate(params) if 0 < p.top_k < vocab_size and not p.greedy]
        lasts = [[params[row].top_k - 1] for row in rows]
        index = row_index(rows, params, device)
        return cls(index, max(lasts)[0] + 1, torch.tensor(lasts, device=device)) if rows else None

    def apply(self, logits_RV: Tensor) -> None:
        logits_FV = take(logits_RV, self.row_F)
        threshold_F1 = logits_FV.topk(self.k_max).values.gather(1, self.last_F1)
        ban(logits_RV, self.row_F, logits_FV, logits_FV < threshold_F1)


def row_index(rows: list[int], params: Sequence[SamplingParams], device: torch.device) -> Tensor | None:
    import torch

    return None if len(rows) == len(params) else torch.tensor(rows, device=device)


def take(logits_RV: Tensor, row_F: Tensor | None) -> Tensor:
    return logits_RV if row_F is None else logits_RV[row_F]


def ban(logits_RV: Tensor, row_F: Tensor | None, logits_FV: Tensor, banned_FV: Tensor) -> None:
    logits_FV.masked_fill_(banned_FV, -math.inf)
    if row_F is not None:
        logits_RV[row_F] = logits_FV
