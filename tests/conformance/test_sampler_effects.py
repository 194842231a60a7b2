"""`check` finds a sampler that accepts a setting and ignores it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from framework.conformance.checks.sampler_effects import effects
from framework.conformance.kit.finding import Violation
from framework.interfaces.sampling_params import SamplingParams
from plugins.samplers.full import Full
from plugins.samplers.gumbel import Gumbel

IGNORED: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logit_bias": {},
}


@pytest.mark.parametrize("name", IGNORED)
def test_each_setting_that_is_ignored_is_named(name: str) -> None:
    class Ignores(Full):
        def redraws(self, params: SamplingParams) -> bool:
            return super().redraws(self._less(params))

        def prepare(self, params: Any, out: Any = None) -> Any:
            return super().prepare([self._less(one) for one in params], out)

        def _less(self, params: SamplingParams) -> SamplingParams:
            greedy = name == "temperature" and params.greedy  # another rule
            return params if greedy else dataclasses.replace(params, **{name: IGNORED[name]})

    with pytest.raises(Violation, match=f"{name}=.* came in 256 draws"):
        effects(Ignores)


def test_a_sampler_that_accepts_everything_and_draws_plainly() -> None:
    class Accepts(Gumbel):
        @classmethod
        def unsupported_reason(cls, params: SamplingParams) -> None:  # type: ignore[override]
            return None

    with pytest.raises(Violation, match=r"logit_bias=.*`unsupported_reason` has to say"):
        effects(Accepts)


def test_one_seed_for_all() -> None:
    class OneSeed(Gumbel):
        def sample(self, logits_RV: Any, prepared: Any, seed_R: Any, *more: Any) -> Any:
            return super().sample(logits_RV, prepared, seed_R * 0, *more)

    with pytest.raises(Violation, match="draws different tokens under different seeds"):
        effects(OneSeed)


@pytest.mark.parametrize("sampler", [Full, Gumbel])
def test_those_that_honour_what_they_accept(sampler: Any) -> None:
    assert "256 draws" in effects(sampler)
