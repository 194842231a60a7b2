"""The checks of samplers: shape and range, independence of the batch, and their stated distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framework.conformance.checks.sampler_effects import EFFECT, effects
from framework.conformance.kit.finding import Budget, Check, NotApplicable, Violation
from framework.conformance.kit.sample_rows import sample_rows
from framework.interfaces.sampler import Sampler
from framework.interfaces.sampling_params import SamplingParams

SHAPE = "one int64 token id of the vocabulary a row"
MATES = "a row's token does not depend on its batch mates"
SEEDS = "the same seed and position give the same token"
REFILL = "prepare(params, out) refills what a graph reads"
GREEDY = "temperature 0 takes the most likely token"
DISTRIBUTION = "draws follow the stated distribution (chi-square)"
MIN_P_VALUE = 1e-6

_VOCAB = 50
_SETTINGS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.4},
    {"temperature": 2.0},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.7},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 1.3, "top_k": 12, "top_p": 0.6},
    {"temperature": 1.0, "repetition_penalty": 1.5, "presence_penalty": 0.5},
    {"temperature": 1.0, "logit_bias": {3: 4.0, 40: -100.0}},
)


Build = Callable[[int, torch.device], Sampler]


def checks(choice: Mapping[Any, Any], build: Build, budget: Budget) -> list[Check]:
    """The checks of the sampler that `build` makes for a vocabulary size and a device."""
    return [
        Check(SHAPE, lambda: _shape(build)),
        Check(SEEDS, lambda: _seeds(build)),
        Check(MATES, lambda: _mates(build)),
        Check(REFILL, lambda: _refill(build)),
        Check(GREEDY, lambda: _greedy(build)),
        Check(EFFECT, lambda: effects(build)),
        Check(DISTRIBUTION, lambda: _distribution(build, budget)),
    ]


def _accepted(sampler: Sampler) -> list[SamplingParams]:
    params = [SamplingParams(**values) for values in _SETTINGS]
    accepted = [one for one in params if type(sampler).unsupported_reason(one) is None]
    if not accepted:
        raise Violation(SHAPE, f"unsupported_reason refuses everything: {type(sampler).unsupported_reason(params[1])}")
    return accepted


def _shape(build: Build) -> str:
    sizes = (1, 2, 7, 64)
    for vocab_size in (2, _VOCAB, 5000):
        sampler = build(vocab_size, torch.device("cpu"))
        for params in _accepted(sampler):
            if any(token >= vocab_size for token in params.logit_bias):
                continue
            for num_rows in sizes:
                for name, logits_RV in _kinds_of_logits(num_rows, vocab_size):
                    tokens_R = sample_rows(sampler, logits_RV, [params] * num_rows, list(range(num_rows)))
                    case = f"{num_rows} rows, vocabulary of {vocab_size}, {name} logits, {_short(params)}"
                    _check_tokens(tokens_R, num_rows, vocab_size, case)
    return f"{len(_accepted(sampler))} of {len(_SETTINGS)} settings accepted; batches of {sizes} rows"


def _check_tokens(tokens_R: Any, num_rows: int, vocab_size: int, case: str) -> None:
    if not isinstance(tokens_R, Tensor) or tokens_R.dtype != torch.int64 or tokens_R.shape != (num_rows,):
        got = f"{tuple(tokens_R.shape)} {tokens_R.dtype}" if isinstance(tokens_R, Tensor) else repr(tokens_R)
        raise Violation(SHAPE, f"got {got}, not ({num_rows},) torch.int64\n{case}")
    bad = [token for token in tokens_R.tolist() if not 0 <= token < vocab_size]
    if bad:
        raise Violation(SHAPE, f"token id {bad[0]} is outside the vocabulary\n{case}")


def _kinds_of_logits(num_rows: int, vocab_size: int) -> list[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(num_rows)
    normal_RV = 2 * torch.randn(num_rows, vocab_size, generator=generator)
    one_left_RV = torch.full_like(normal_RV, -torch.inf)
    one_left_RV[:, vocab_size // 2] = 1.0
    return [
        ("normal", normal_RV),
        ("equal", torch.zeros_like(normal_RV)),
        ("very large", normal_RV * 1e4),
        ("all but one -inf", one_left_RV),
    ]


def _seeds(build: Build) -> str:
    sampler = build(_VOCAB, torch.device("cpu"))
    for params in _accepted(sampler):
        logits_RV = _kinds_of_logits(32, _VOCAB)[0][1]
        one, other = (sample_rows(sampler, logits_RV, [params] * 32, list(range(32))).tolist() for _ in range(2))
        if one != other:
            row = next(i for i in range(32) if one[i] != other[i])
            raise Violation(SEEDS, f"row {row} got token {one[row]}, then {other[row]}; {_short(params)}")
    return "32 rows a setting, each twice"


def _mates(build: Build) -> str:
    """A row gets the same token alone, in a batch of all settings, and in the reverse of that batch."""
    sampler = build(_VOCAB, torch.device("cpu"))
    params = _accepted(sampler) * 4
    logits_RV = _kinds_of_logits(len(params), _VOCAB)[0][1]
    seeds = list(range(100, 100 + len(params)))
    together = sample_rows(sampler, logits_RV, params, seeds).tolist()
    backward = sample_rows(sampler, logits_RV.flip(0), params[::-1], seeds[::-1]).flip(0).tolist()
    for row, one in enumerate(params):
        alone = sample_rows(sampler, logits_RV[row : row + 1], [one], [seeds[row]]).tolist()[0]
        if not alone == together[row] == backward[row]:
            got = f"{alone} alone, {together[row]} among {len(params)} rows, {backward[row]} in reverse order"
            raise Violation(MATES, f"row {row} got token {got}; {_short(one)}")
    return f"{len(params)} rows alone, together and in reverse order"


def _refill(build: Build) -> str:
    """Prepare and refill as when a graph is captured and replayed: for padding first, then for the rows that come.

    On a GPU the tensors given must be the ones refilled; elsewhere no graph reads them.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sampler = build(_VOCAB, device)
    if not sampler.graph_safe:
        raise NotApplicable("the sampler is not graph_safe")
    settings = [one for one in _accepted(sampler) if not one.has_penalties]
    for params in settings:
        rows, seeds = [params] * 8, list(range(8))
        logits_RV = _kinds_of_logits(8, _VOCAB)[0][1]
        want = sample_rows(sampler, logits_RV, rows, seeds).tolist()
        captured = sampler.prepare([SamplingParams(temperature=0)] * 8)
        refilled = sampler.prepare(rows, captured)
        used = captured if device.type == "cuda" else refilled
        got = sample_rows(sampler, logits_RV, rows, seeds, prepared=used).tolist()
        if got != want:
            raise Violation(REFILL, f"tokens {got} from refilled parameters, {want} from fresh ones; {_short(params)}")
    return f"{len(settings)} settings of 8 rows on {device}"


def _greedy(build: Build) -> str:
    sampler = build(_VOCAB, torch.device("cpu"))
    greedy = SamplingParams(temperature=0.0)
    if reason := type(sampler).unsupported_reason(greedy):
        raise NotApplicable(reason)
    logits_RV = _kinds_of_logits(64, _VOCAB)[0][1]
    tokens = sample_rows(sampler, logits_RV, [greedy] * 64, list(range(64))).tolist()
    for row, (token, best) in enumerate(zip(tokens, logits_RV.argmax(-1).tolist(), strict=True)):
        if token != best:
            raise Violation(GREEDY, f"row {row} got token {token}, the most likely one is {best}")
    return "64 rows"


def _distribution(build: Build, budget: Budget) -> str:
    sampler = build(_VOCAB, torch.device("cpu"))
    logits_V = np.random.default_rng(5).normal(0, 2, _VOCAB)
    num_tried, smallest, few = 0, 1.0, 0
    for params in _accepted(sampler):
        if params.has_penalties or params.logit_bias:
            continue
        probs_V = sampler.probabilities(logits_V, params)
        if probs_V is None:
            raise NotApplicable("the sampler states no distribution: give it `probabilities(logits_V, params)`")
        if probs_V.shape != (_VOCAB,) or abs(float(probs_V.sum()) - 1) > 1e-6 or probs_V.min() < 0:
            raise Violation(
                DISTRIBUTION, f"`probabilities` is not a distribution over {_VOCAB} tokens; {_short(params)}"
            )
        few = budget.num_draws // 4
        for what, seeds in (
            ("one request's positions", [7] * budget.num_draws),
            ("one position of requests with seeds that follow each other", list(range(few))),
        ):
            logits_RV = torch.tensor(logits_V, dtype=torch.float32).repeat(len(seeds), 1)
            tokens_R = sample_rows(sampler, logits_RV, [params] * len(seeds), seeds, one_request=seeds[0] == seeds[-1])
            counts_V = np.bincount(tokens_R.numpy(), minlength=_VOCAB)
            p_value = chi_square_p(counts_V, probs_V)
            smallest = min(smallest, p_value)
            if p_value < MIN_P_VALUE:
                worst = int(np.abs(counts_V / counts_V.sum() - probs_V).argmax())
                share = f"token {worst} came in {counts_V[worst] / counts_V.sum():.4f} of {len(seeds)} draws at {what}"
                raise Violation(
                    DISTRIBUTION, f"p={p_value:.1e}; {share}, stated {probs_V[worst]:.4f}; {_short(params)}"
                )
        num_tried += 1
    return (
        f"{num_tried} settings x {budget.num_draws:,} draws of one request and {few:,} of others, smallest p-value "
        f"{smallest:.3f}"
    )


def chi_square_p(counts_V: np.ndarray, probs_V: np.ndarray) -> float:
    """The p-value of Pearson's test, 0 if an impossible token came; tokens expected fewer than 5 times are one bin."""
    if counts_V[probs_V == 0].any():
        return 0.0
    expected_V = probs_V * counts_V.sum()
    large_V = expected_V >= 5
    observed = np.append(counts_V[large_V], counts_V[~large_V].sum())
    expected = np.append(expected_V[large_V], expected_V[~large_V].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    if len(observed) < 2:
        return 1.0
    statistic = float(((observed - expected) ** 2 / expected).sum())
    half_dof = torch.tensor((len(observed) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(half_dof, torch.tensor(statistic / 2, dtype=torch.float64)))


def _short(params: SamplingParams) -> str:
    default = SamplingParams()
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "logit_bias")
    return (
        ", ".join(
            f"{name}={getattr(params, name)}" for name in names if getattr(params, name) != getattr(default, name)
        )
        or "temperature=1.0"
    )
