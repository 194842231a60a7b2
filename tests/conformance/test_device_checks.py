"""The checks find what is wrong with a sampler, an attention backend or a graph strategy, and name the rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from framework.conformance import Budget, Finding, attention_checks, graph_checks, sampler_checks
from framework.conformance.run import run_checks
from framework.interfaces import BatchShape, GraphKey, GraphLimits, GraphStrategy
from framework.interfaces.sampling_params import SamplingParams
from plugins.attention.sdpa import SDPA
from plugins.samplers.gumbel import Gumbel

BUDGET = Budget(num_examples=10, search_s=3.0, shrink_s=1.5, num_draws=5000)


def findings(kind: Any, build: Any, name: str = "mine") -> dict[str, Finding]:
    checks = kind.checks(OmegaConf.create({"name": name}), build, BUDGET)
    return {finding.rule: finding for finding in run_checks(checks)}


class Stated(Gumbel):
    def probabilities(self, logits_V: np.ndarray, params: SamplingParams) -> np.ndarray:
        probs_V = np.exp((logits_V - logits_V.max()) / params.temperature)
        return np.asarray(probs_V / probs_V.sum())


class TooHot(Stated):
    def sample(self, logits_RV: Any, *more: Any) -> Any:
        return super().sample(logits_RV / 1.1, *more)


class OutsideVocabulary(Gumbel):
    def sample(self, logits_RV: Any, *more: Any) -> Any:
        return super().sample(logits_RV, *more) + self.vocab_size


class WrongShape(Gumbel):
    def sample(self, *given: Any) -> Any:
        return super().sample(*given)[:, None]


class LooksAtItsMates(Gumbel):
    def sample(self, logits_RV: Any, *more: Any) -> Any:
        return super().sample(logits_RV - logits_RV.mean(0), *more)


class GlobalNoise(Gumbel):
    def sample(self, logits_RV: Any, *more: Any) -> Any:
        return super().sample(logits_RV + torch.rand_like(logits_RV), *more)


@pytest.mark.parametrize(
    ("sampler", "rule"),
    [
        (TooHot, sampler_checks.DISTRIBUTION),
        (OutsideVocabulary, sampler_checks.SHAPE),
        (WrongShape, sampler_checks.SHAPE),
        (LooksAtItsMates, sampler_checks.MATES),
        (GlobalNoise, sampler_checks.SEEDS),
    ],
)
def test_a_wrong_sampler(sampler: Any, rule: str) -> None:
    assert findings(sampler_checks, sampler)[rule].status == "fails"


def test_a_right_sampler() -> None:
    assert {finding.status for finding in findings(sampler_checks, Stated).values()} == {"holds"}


class WrongScale(SDPA):
    def __init__(self, spec: Any) -> None:
        super().__init__(type(spec)(**{name: getattr(spec, name) for name in spec.__slots__} | {"scale": 0.2}))


class WritesPadding(SDPA):
    """Writes slot -1, which is the last one of the cache."""

    def plan(self, batch: Any) -> Any:
        batch.slot_mapping_T = batch.slot_mapping_T.clamp(min=0)
        return super().plan(batch)


@pytest.mark.parametrize("backend", [WrongScale, WritesPadding])
def test_a_wrong_attention_backend(backend: Any) -> None:
    found = findings(attention_checks, backend, "sdpa")
    assert "fails" in {finding.status for finding in found.values()}
    assert any("rows (tokens): " in finding.detail for finding in found.values())


class Graphs(GraphStrategy):
    """Right: decode batches padded to the next power of two."""

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        most = min(limits.max_num_seqs, limits.max_num_batched_tokens)
        self.sizes = sorted({1 << p for p in range(9) if 1 << p < most} | {most})
        return [GraphKey(size, size) for size in reversed(self.sizes)]

    def select(self, shape: BatchShape) -> GraphKey | None:
        if not shape.decode_only:
            return None
        size = next(size for size in self.sizes if size >= shape.num_rows)
        return GraphKey(size, size)


class SmallestFirst(Graphs):
    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        return super().keys(limits)[::-1]


class TooLarge(Graphs):
    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        return [GraphKey(512, 512), *super().keys(limits)]


class NotCaptured(Graphs):
    def select(self, shape: BatchShape) -> GraphKey | None:
        return GraphKey(shape.num_tokens, shape.num_rows)


class TooSmall(Graphs):
    def select(self, shape: BatchShape) -> GraphKey | None:
        return GraphKey(1, 1)


class PrefillInDecodeGraph(Graphs):
    def select(self, shape: BatchShape) -> GraphKey | None:
        size = next((size for size in self.sizes if size >= shape.num_tokens), None)
        return None if size is None else GraphKey(size, size)


@pytest.mark.parametrize(
    ("strategy", "rule"),
    [
        (SmallestFirst, graph_checks.KEYS),
        (TooLarge, graph_checks.KEYS),
        (NotCaptured, graph_checks.SELECTS),
        (TooSmall, graph_checks.SELECTS),
        (PrefillInDecodeGraph, graph_checks.SELECTS),
    ],
)
def test_a_wrong_graph_strategy(strategy: type[GraphStrategy], rule: str) -> None:
    assert findings(graph_checks, strategy)[rule].status == "fails"


def test_a_right_graph_strategy() -> None:
    assert {finding.status for finding in findings(graph_checks, Graphs).values()} == {"holds", "skipped"}
