"""Log-probabilities of sampled and most likely tokens, for the rows that ask and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framework.interfaces.executor import TokenLogprobs


@dataclass(slots=True)
class DeviceLogprobs:
    """The A asking rows of a step, still on the device."""

    num_top: Sequence[int | None]
    """As `SamplingParams.logprobs`, for all R rows"""
    token_A: Tensor
    logprob_A: Tensor
    top_token_AK: Tensor
    top_logprob_AK: Tensor

    @classmethod
    def of(
        cls,
        logits_RV: Tensor,
        token_ids_R: Tensor,
        num_top: Sequence[int | None],
        whole: Callable[[Tensor], Tensor] | None = None,
    ) -> DeviceLogprobs | None:
        """Queue the computation, without waiting for the device. None when no row asks.

        Args:
            logits_RV: [R, V] raw logits. A sampler may overwrite its input: then pass a copy made before it ran.
            token_ids_R: [R] the sampled tokens.
            num_top: for each row how many of the most likely tokens it wants (above V: all), or None for nothing.
            whole: makes rows of the whole vocabulary of those of `logits_RV`, where ranks have a part of it each.
        """
        rows = [row for row, count in enumerate(num_top) if count is not None]
        if not rows:
            return None
        asking_A = torch.tensor(rows, device=logits_RV.device)
        asking_AV = logits_RV[asking_A]
        all_AV = (asking_AV if whole is None else whole(asking_AV)).float().log_softmax(-1)
        token_A = token_ids_R[asking_A].long()
        k_max = min(max(count or 0 for count in num_top), all_AV.shape[1])
        top_AK = all_AV.topk(k_max)
        return cls(num_top, token_A, all_AV.gather(1, token_A.unsqueeze(1)).squeeze(1), top_AK.indices, top_AK.values)

    def to_host(self) -> list[TokenLogprobs | None]:
        """Wait for the device and build the record of each of the R rows."""
        tokens, logprobs = self.token_A.tolist(), self.logprob_A.tolist()
        tops = zip(self.top_token_AK.tolist(), self.top_logprob_AK.tolist(), strict=True)
        asking = zip(tokens, logprobs, tops, strict=True)
        result: list[TokenLogprobs | None] = []
        for count in self.num_top:
            if count is None:
                result.append(None)
                continue
            token, logprob, (top_tokens, top_logprobs) = next(asking)
            result.append(TokenLogprobs(token, logprob, list(zip(top_tokens, top_logprobs, strict=True))[:count]))
        return result


def token_logprobs(logits_RV: Tensor, token_ids_R: Tensor, num_top: Sequence[int | None]) -> list[TokenLogprobs | None]:
    """`DeviceLogprobs.of(...).to_host()`: one entry a row, None for rows that do not ask. Waits for the device."""
    on_device = DeviceLogprobs.of(logits_RV, token_ids_R, num_top)
    return on_device.to_host() if on_device else [None] * len(num_top)
