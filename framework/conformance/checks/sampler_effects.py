"""The check that a sampler honours each setting that it accepts: values so large that their effect is certain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from framework.conformance.kit.finding import Violation
from framework.conformance.kit.sample_rows import sample_rows
from framework.interfaces.sampler import Sampler
from framework.interfaces.sampling_params import SamplingParams

EFFECT = "every setting that it accepts does something"

_VOCAB, _NUM_ROWS = 50, 256
_BEST, _SECOND, _THIRD, _RARE = 7, 11, 13, 40
_TEXT = (_BEST, 2, 3, _BEST, _BEST)
"""Three tokens of the prompt, two of the output. The most likely token is in both."""
_PROMPT_ONLY = (_BEST, 2, 3, 4, 5)


@dataclass(frozen=True)
class _Case:
    """What a setting must do to the draws of one request's rows."""

    says: str
    params: dict[str, Any]
    logits: dict[int, float]
    """The others are 0."""
    only: frozenset[int] | None = None
    """The tokens that may come."""
    never: frozenset[int] = frozenset()
    num_kinds: int = 1
    """How many different tokens have to come at least."""
    text: tuple[int, ...] = _PROMPT_ONLY


def _tokens(*ids: int) -> frozenset[int]:
    return frozenset(ids)


_GREEDY = {"temperature": 0.0}
_LADDER = {_BEST: 12.0, _SECOND: 11.5, _THIRD: 11.0}
_CASES = (
    _Case("draws different tokens under different seeds", {}, {}, num_kinds=10),
    _Case(
        "takes the token with it at temperature 0", _GREEDY | {"logit_bias": {_RARE: 100.0}}, _LADDER, _tokens(_RARE)
    ),
    _Case("draws the token with it", {"logit_bias": {_RARE: 100.0}}, _LADDER, _tokens(_RARE)),
    _Case("never draws a token with it", {"logit_bias": {_BEST: -100.0}}, _LADDER, never=_tokens(_BEST)),
    _Case("takes another token at temperature 0", _GREEDY | {"logit_bias": {_BEST: -100.0}}, _LADDER, _tokens(_SECOND)),
    _Case("draws the most likely token alone", {"top_k": 1}, _LADDER, _tokens(_BEST)),
    _Case("draws from the most likely tokens alone", {"top_k": 2}, _LADDER, _tokens(_BEST, _SECOND), num_kinds=2),
    _Case("draws the most likely token alone", {"top_p": 1e-4}, _LADDER, _tokens(_BEST)),
    _Case(
        "draws from the smallest set of that share alone", {"top_p": 0.6}, _LADDER, _tokens(_BEST, _SECOND), num_kinds=2
    ),
    _Case("draws the most likely token alone", {"min_p": 1.0}, _LADDER, _tokens(_BEST)),
    _Case("drops what is less likely than that share", {"min_p": 0.5}, _LADDER, _tokens(_BEST, _SECOND), num_kinds=2),
    _Case("draws the most likely token alone", {"temperature": 0.01}, _LADDER, _tokens(_BEST)),
    _Case("makes rare tokens likely", {"temperature": 50.0}, {_BEST: 12.0}, num_kinds=10),
    _Case("avoids tokens of the prompt", _GREEDY | {"repetition_penalty": 100.0}, _LADDER, _tokens(_SECOND)),
    _Case("avoids tokens of the output", _GREEDY | {"presence_penalty": 2.0}, _LADDER, _tokens(_SECOND), text=_TEXT),
    _Case("leaves tokens of the prompt", _GREEDY | {"presence_penalty": 2.0}, _LADDER, _tokens(_BEST)),
    _Case(
        "counts what the output repeats",
        _GREEDY | {"frequency_penalty": 2.0},
        {_BEST: 12.0, _SECOND: 9.0},
        _tokens(_SECOND),
        text=_TEXT,
    ),
    _Case("leaves tokens of the prompt", _GREEDY | {"frequency_penalty": 2.0}, _LADDER, _tokens(_BEST)),
)


def effects(build: Callable[[int, torch.device], Sampler]) -> str:
    """Try every case whose settings the sampler accepts.

    Raises:
        Violation: the first one that has no effect.
    """
    sampler = build(_VOCAB, torch.device("cpu"))
    tried: dict[str, None] = {}
    for case in _CASES:
        params = SamplingParams(**case.params)
        if type(sampler).unsupported_reason(params) is None:
            _try(sampler, case, params)
            tried |= dict.fromkeys(case.params or ("seed",))
    return f"{', '.join(tried)}: {_NUM_ROWS} draws per case" if tried else "it accepts none of them"


def _try(sampler: Sampler, case: _Case, params: SamplingParams) -> None:
    logits_V = torch.zeros(_VOCAB)
    for token, logit in case.logits.items():
        logits_V[token] = logit
    rows, seeds = [params] * _NUM_ROWS, list(range(_NUM_ROWS))
    drawn = set(sample_rows(sampler, logits_V.repeat(_NUM_ROWS, 1), rows, seeds, text=case.text).tolist())
    settings = ", ".join(f"{name}={value}" for name, value in case.params.items()) or "another seed per row"
    wrong = sorted(drawn & case.never if case.only is None else drawn - case.only)
    if wrong or len(drawn) < case.num_kinds:
        got = f"token {wrong[0]} came" if wrong else f"only {sorted(drawn)} came"
        raise Violation(
            EFFECT,
            f"{settings}: {case.says}, but {got} in {_NUM_ROWS} draws; logits {case.logits}, others 0; prompt "
            f"{list(case.text[:3])}, output {list(case.text[3:])}. What it does not serve, `unsupported_reason` has to "
            f"say",
        )
