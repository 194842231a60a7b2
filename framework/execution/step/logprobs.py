"""Log-probabilities of sampled and most likely tokens, for the rows that ask and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framework.interfaces.executor import TokenLogprobs


@dataclass(slots=True)
class DeviceLogprobs:
    """Any number of most likely tokens for the A rows that ask, by a softmax and a sort."""

    num_top: Sequence[int | None]
    """The value of `SamplingParams.logprobs` for all R rows."""
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
        """Queue the computation without waiting for the device. None if no row asks.

        Args:
            logits_RV: [R, V] raw logits. A sampler may overwrite its input: then pass a copy made before it ran.
            token_ids_R: [R] the sampled tokens.
            num_top: for each row how many of the most likely tokens it wants (above V: all), or None for nothing.
            whole: makes rows of the whole vocabulary of those of `logits_RV`, where ranks have a part of it each.
        """
        rows = [row for row, count in enumerate(num_top) if count is not None]
        if not rows:
            return None
        asking_A = _sent(torch.tensor(rows), logits_RV.device)
        asking_AV = logits_RV[asking_A]
        all_AV = (asking_AV if whole is None else whole(asking_AV)).float().log_softmax(-1)
        token_A = token_ids_R[asking_A].clamp(min=0)  # NOT_FINITE is below 0, and its log-probability is not read
        k_max = min(max(count or 0 for count in num_top), all_AV.shape[1])
        top_AK = all_AV.topk(k_max)
        logprob_A = all_AV.gather(1, token_A.unsqueeze(1)).squeeze(1)
        return cls(num_top, *map(to_pinned, (token_A, logprob_A, top_AK.indices, top_AK.values)))

    def to_host(self) -> list[TokenLogprobs | None]:
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


@dataclass(slots=True)
class PackedLogprobs:
    """Up to `MAX_TOP` most likely tokens for all R rows of a step, as found by a kernel. Some of the rows ask."""

    counts: Sequence[int]
    """The result of `counts_of` for all R rows."""
    token_R: Tensor
    packed_RW: Tensor
    """The result of `top_logprobs`."""

    @classmethod
    def of(cls, packed_RW: Tensor, token_ids_R: Tensor, counts: Sequence[int]) -> PackedLogprobs:
        """Send what `top_logprobs` gave for the sampled tokens, without waiting for the device."""
        return cls(counts, to_pinned(token_ids_R), to_pinned(packed_RW))

    def to_host(self) -> list[TokenLogprobs | None]:
        bits_RW = self.packed_RW.numpy()
        width, most = (bits_RW.shape[1] - 1) // 2, max(0, *self.counts)
        tokens, own = self.token_R.tolist(), bits_RW[:, 0].view("float32").tolist()
        top_tokens = bits_RW[:, 1 : 1 + most].tolist()
        top_values = bits_RW[:, 1 + width : 1 + width + most].view("float32").tolist()
        rows = zip(self.counts, tokens, own, top_tokens, top_values, strict=True)
        return [
            None if count < 0 else TokenLogprobs(token, value, list(zip(ids, values, strict=True))[:count])
            for count, token, value, ids, values in rows
        ]


def counts_of(num_top: Sequence[int | None], vocab_size: int) -> list[int]:
    """The counts that the kernel `top_logprobs` takes: -1 for a row that does not ask, and at most `vocab_size`."""
    return [-1 if count is None else min(count, vocab_size) for count in num_top]


def token_logprobs(logits_RV: Tensor, token_ids_R: Tensor, num_top: Sequence[int | None]) -> list[TokenLogprobs | None]:
    """One entry per row, None for rows that do not ask. Waits for the device."""
    on_device = DeviceLogprobs.of(logits_RV, token_ids_R, num_top)
    if on_device is None:
        return [None] * len(num_top)
    if logits_RV.is_cuda:
        torch.cuda.synchronize(logits_RV.device)
    return on_device.to_host()


def _sent(host: Tensor, device: torch.device) -> Tensor:
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def to_pinned(tensor: Tensor) -> Tensor:
    """A copy in pinned memory that is complete when the step is. On a CPU it is the tensor itself."""
    if not tensor.is_cuda:
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)
