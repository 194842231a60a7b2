"""How good the tokens of a run are: what a policy that trades accuracy for speed has to show beside its speed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from framework.interfaces.executor import TokenLogprobs

ATTENTION = ("perplexity", "perplexity_exact", "kl_exact_nats")
"""Of cells whose attention is not exact."""
ANSWERS = ("answer_logprob", "distinct_1", "distinct_2", "repetition_fraction")
"""Of every cell that runs a model."""
_REPEATED = 4


def answer_statistics(answers: Iterable[Sequence[int]]) -> dict[str, float | None]:
    """Means over answers, of their token ids.

    `distinct_n` is the share of an answer's n-grams that differ (Li et al. 2016, arXiv 1510.03055), and
    `repetition_fraction` the share of its 4-grams that it has had before (Welleck et al. 2020, arXiv 1908.04319).
    None where no answer is long enough.
    """
    kept = list(answers)
    repeated = _mean(_distinct(answer, _REPEATED) for answer in kept)
    return {
        "distinct_1": _mean(_distinct(answer, 1) for answer in kept),
        "distinct_2": _mean(_distinct(answer, 2) for answer in kept),
        "repetition_fraction": None if repeated is None else 1 - repeated,
    }


def perplexity(logprobs: Sequence[float]) -> float:
    """e to the mean negative log-probability, in nats; infinite if that is beyond float64."""
    mean = -sum(logprobs) / len(logprobs)
    return math.exp(mean) if mean < 700 else math.inf


def kl_nats(exact: TokenLogprobs, other: TokenLogprobs) -> float:
    """A lower bound of the divergence KL(exact || other) at one position.

    Its bins are the most likely tokens that both name, and all other tokens together. Merging outcomes never raises
    the divergence, and with enough tokens named the bound is close.
    """
    named = {**dict(other.top), other.token_id: other.logprob}
    divergence = rest = other_rest = 0.0
    for token, logprob in exact.top:
        if token in named:
            p = math.exp(logprob)
            divergence += p * (logprob - named[token])
            rest, other_rest = rest + p, other_rest + math.exp(named[token])
    p, q = max(1 - rest, 0.0), max(1 - other_rest, 1e-12)
    return max(0.0, divergence + (p * math.log(p / q) if p > 1e-12 else 0.0))


def attention_note(effective: Mapping[str, Any], metrics: Mapping[str, float | None]) -> str:
    """What a reader of the cell has to know of its attention; empty if it is exact."""
    if effective.get("attention_exact", True):
        return ""
    name = f"attention={effective['attention']} is not exact"
    own, exact, divergence = (metrics.get(one) for one in ATTENTION)
    if own is None or exact is None or divergence is None:
        return f"{name}, and its quality was not measured"
    return f"{name}: perplexity {own:.4g} against {exact:.4g}, divergence {divergence:.3g} nats per token"


def _distinct(answer: Sequence[int], n: int) -> float | None:
    grams = [tuple(answer[start : start + n]) for start in range(len(answer) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
