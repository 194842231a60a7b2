"""Every sampling parameter that requests can carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.registry import SAMPLERS
from framework.toolkit.samplers import stated
from framework.toolkit.samplers.filters import MinP, TopK
from framework.toolkit.samplers.logit_bias import LogitBias
from framework.toolkit.samplers.nucleus import TopP
from framework.toolkit.samplers.penalties import Penalties
from framework.toolkit.samplers.row_params import MAX_BIAS, RowParams, kind_of
from framework.toolkit.samplers.selection import argmax_rows, gumbel_argmax
from framework.toolkit.samplers.temperature import Temperature

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


@dataclass(slots=True)
class Prepared:
    """What the rows ask for. A field is None if no row asks for it, so that it costs nothing."""

    bias: LogitBias | None
    penalties: Penalties | None
    temperature: Temperature | None
    filters: list[MinP | TopK | TopP]


@SAMPLERS.register("full")
class Full(Sampler):
    """Temperature, top-k, top-p, min-p, repetition/presence/frequency penalties, logit bias.

    The order is vLLM's: on the raw logits the bias, then the repetition, frequency and presence penalties; then the
    temperature; then min-p, top-k and top-p, each over what the one before left. Then one token is drawn as in
    `gumbel`. Tokens equal to the last one that a filter keeps are kept too. A row of temperature 0 takes the most
    likely token after bias and penalties.

    On a GPU every row is drawn as in `gumbel` first. In a batch in which some rows ask for more, these rows alone are
    drawn again: kernels mark bias and penalties, search the filters' thresholds without a sort, and draw. All of it
    reads the rows' parameters in device memory, so that graphs hold it.
    """

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        super().__init__(vocab_size, device)
        # What the kernels do: read logits once and write none, look for NaN, draw from a part of the vocabulary.
        self.takes_model_dtype = self.checks_finite = self.can_shard = device.type == "cuda"

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        if len(params.logit_bias) > MAX_BIAS:
            return f"logit_bias has {len(params.logit_bias)} entries; at most {MAX_BIAS} are possible, remove some"
        return None

    def prepare(self, params: Sequence[SamplingParams], out: RowParams | None = None) -> Prepared | RowParams:
        if self.takes_model_dtype:
            return RowParams.of(params, self.vocab_size, self.device, out)
        temperature = Temperature.of(params, self.device)
        top_k = TopK.of(params, self.vocab_size, self.device)
        filters = (MinP.of(params, self.device), top_k, TopP.of(params, self.device))
        return Prepared(
            LogitBias.of(params, self.vocab_size, self.device),
            Penalties.of(params, self.device),
            temperature,
            [one for one in filters if one is not None] if temperature else [],
        )

    def sample(
        self,
        logits_RV: Tensor,
        prepared: Prepared | RowParams,
        seed_R: Tensor,
        position_R: Tensor,
        history: TokenHistory,
    ) -> Tensor:
        if isinstance(prepared, RowParams):
            from framework.execution.kernels.cuda.sampling.gumbel import gumbel_argmax as fused_gumbel_argmax

            divisor_R, weight_R = prepared.first_divisor_R, prepared.first_weight_R
            return fused_gumbel_argmax(logits_RV, divisor_R, weight_R, seed_R, position_R)
        if prepared.bias:
            prepared.bias.apply(logits_RV)
        if prepared.penalties:
            prepared.penalties.apply(logits_RV, history)
        if prepared.temperature is None:
            return argmax_rows(logits_RV)
        logits_RV /= prepared.temperature.divisor_R1
        for one in prepared.filters:
            one.apply(logits_RV)
        return gumbel_argmax(logits_RV, seed_R, position_R, prepared.temperature.noise_weight_R1)

    def sample_shard(
        self, logits_RW: Tensor, prepared: RowParams, seed_R: Tensor, position_R: Tensor, first_token: int
    ) -> tuple[Tensor, Tensor]:
        from framework.execution.kernels.cuda.sampling.gumbel import gumbel_best

        divisor_R, weight_R = prepared.first_divisor_R, prepared.first_weight_R
        return gumbel_best(logits_RW, divisor_R, weight_R, seed_R, position_R, first_token)

    def redraws(self, params: SamplingParams) -> bool:
        return self.takes_model_dtype and kind_of(params, self.vocab_size) > 0

    def redraw(
        self,
        logits_RV: Tensor,
        prepared: RowParams,
        seed_R: Tensor,
        position_R: Tensor,
        history: TokenHistory,
        token_R: Tensor,
    ) -> Tensor:
        from framework.execution.kernels.cuda.sampling.redraw import redraw

        return redraw(logits_RV, prepared, seed_R, position_R, history, token_R)

    def probabilities(self, logits_V: np.ndarray, params: SamplingParams) -> np.ndarray:
        filters = stated.min_p(params.min_p), stated.top_k(params.top_k), stated.top_p(params.top_p)
        return stated.masked_softmax(logits_V, params, *filters)
