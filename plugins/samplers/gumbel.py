"""Sampling by temperature alone, without a softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.registry import SAMPLERS
from plugins.samplers.selection import Temperature, argmax_rows, gumbel_argmax

if TYPE_CHECKING:
    from torch import Tensor


@SAMPLERS.register("gumbel")
class Gumbel(Sampler):
    """Temperature sampling by the Gumbel-max trick; rows of temperature 0 take the most likely token.

    argmax(softmax(logits / t) / E) with E ~ Exp(1) draws from the softmax (the exponential race; Gumbel, 1954; Maddison
    et al., "A* Sampling", NeurIPS 2014). It is computed in log space. A batch that is greedy throughout pays no noise.
    """

    graph_safe = True

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        used = [
            name
            for name, is_used in (
                ("top_k", params.top_k > 0 and not params.greedy),
                ("top_p", params.top_p < 1 and not params.greedy),
                ("min_p", params.min_p > 0 and not params.greedy),
                ("penalties", params.has_penalties),
                ("logit_bias", bool(params.logit_bias)),
            )
            if is_used
        ]
        return f"sampler=gumbel has no {', '.join(used)}; choose sampler=full" if used else None

    def prepare(self, params: Sequence[SamplingParams]) -> Temperature | None:
        return Temperature.of(params, self.device)

    def sample(
        self,
        logits_RV: Tensor,
        prepared: Temperature | None,
        seed_R: Tensor,
        position_R: Tensor,
        history: TokenHistory,
    ) -> Tensor:
        if prepared is None:
            return argmax_rows(logits_RV)
        logits_RV /= prepared.divisor_R1
        return gumbel_argmax(logits_RV, seed_R, position_R, prepared.noise_weight_R1)
