"""The checks find what is wrong with a sampler, an attention backend or a graph strategy, and name the rule."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy import stats

from framework.conformance import Budget, Finding
from framework.conformance.checks import attention as attention_checks
from framework.conformance.checks import graph as graph_checks
from framework.conformance.checks import sampler as sampler_checks
from framework.conformance.run import run_checks
from framework.interfaces import BatchShape, GraphKey, GraphLimits, GraphStrategy
from framework.interfaces.attention import GraphSupport
from framework.registry import SAMPLERS
from framework.registry.discovery import discover
from plugins.attention.sdpa import SDPA
from plugins.samplers.gumbel import Gumbel

discover()
BUDGET = Budget(num_examples=10, search_s=3.0, shrink_s=1.5, num_draws=5000)


def findings(kind: Any, build: Any, name: str = "mine") -> dict[str, Finding]:
    checks = kind.checks(OmegaConf.create({"name": name}), build, BUDGET)
    return {finding.rule: finding for finding in run_checks(checks)}


class TooHot(Gumbel):
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


class NeverGreedy(Gumbel):
    def prepare(self, params: Any, out: Any = None) -> Any:
        return super().prepare([dataclasses.replace(one, temperature=one.temperature or 1.0) for one in params], out)


class KeepsWhatItWasCapturedWith(Gumbel):
    def prepare(self, params: Any, out: Any = None) -> Any:
        return (super().prepare(params),) if out is None else out

    def sample(self, logits_RV: Any, prepared: Any, *more: Any) -> Any:
        return super().sample(logits_RV, prepared[0], *more)


class KnowsNoGraphs(Gumbel):
    """A sampler as `framework new sampler` once wrote it."""

    def prepare(self, params: Any) -> Any:  # type: ignore[override]
        return super().prepare(params)


@pytest.mark.parametrize(
    ("sampler", "rule"),
    [
        (KeepsWhatItWasCapturedWith, sampler_checks.REFILL),
        (KnowsNoGraphs, sampler_checks.REFILL),
        (NeverGreedy, sampler_checks.GREEDY),
        (TooHot, sampler_checks.DISTRIBUTION),
        (OutsideVocabulary, sampler_checks.SHAPE),
        (WrongShape, sampler_checks.SHAPE),
        (LooksAtItsMates, sampler_checks.MATES),
        (GlobalNoise, sampler_checks.SEEDS),
    ],
)
def test_a_wrong_sampler(sampler: Any, rule: str) -> None:
    assert findings(sampler_checks, sampler)[rule].status == "fails"


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_every_built_in_sampler_states_what_it_draws_from(name: str) -> None:
    found = findings(sampler_checks, SAMPLERS.get(name))
    assert found[sampler_checks.DISTRIBUTION].status == "holds"
    if not SAMPLERS.get(name).graph_safe:
        del found[sampler_checks.REFILL]
    assert {finding.status for finding in found.values()} == {"holds"}


class StatesNothing(Gumbel):
    def probabilities(self, logits_V: Any, params: Any) -> None:  # type: ignore[override]
        return None


class StatesNonsense(Gumbel):
    def probabilities(self, logits_V: Any, params: Any) -> Any:
        return 2 * super().probabilities(logits_V, params)


@pytest.mark.parametrize(("sampler", "status"), [(StatesNothing, "skipped"), (StatesNonsense, "fails")])
def test_a_sampler_without_a_distribution(sampler: Any, status: str) -> None:
    assert findings(sampler_checks, sampler)[sampler_checks.DISTRIBUTION].status == status


def test_chi_square_is_that_of_scipy() -> None:
    probs_V = np.random.default_rng(3).dirichlet(np.full(40, 0.5))
    for shift in (0.0, 0.3):
        counts_V = np.random.default_rng(4).multinomial(3000, (1 - shift) * probs_V + shift / 40)
        large_V = probs_V * 3000 >= 5
        observed, expected = (np.append(x_V[large_V], x_V[~large_V].sum()) for x_V in (counts_V, probs_V * 3000))
        wanted = stats.chisquare(observed, expected).pvalue
        assert sampler_checks.chi_square_p(counts_V, probs_V) == pytest.approx(wanted, rel=1e-6)


class WrongScale(SDPA):
    def __init__(self, spec: Any) -> None:
        super().__init__(type(spec)(**{name: getattr(spec, name) for name in spec.__slots__} | {"scale": 0.2}))


class WritesPadding(SDPA):
    """Writes slot -1, which is the last one of the cache."""

    def plan(self, batch: Any) -> Any:
        batch.slot_mapping_T = batch.slot_mapping_T.clamp(min=0)
        return super().plan(batch)


class AsksTheHost(SDPA):
    """Says that it runs in graphs, where the host knows no lengths."""

    graph_support = GraphSupport.DECODE

    def plan(self, batch: Any) -> Any:
        assert len(batch.seq_lens_host) == batch.num_rows
        return super().plan(batch)


@pytest.mark.parametrize("backend", [WrongScale, WritesPadding, AsksTheHost])
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


class Undecided(Graphs):
    turn = itertools.count()

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        return super().keys(limits)[next(self.turn) % 2 :]


class Twice(Graphs):
    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        first, *others = super().keys(limits)
        return [first, first, *others]


@pytest.mark.parametrize(
    ("strategy", "rule"),
    [
        (Undecided, "the same limits give the same keys"),
        (Twice, graph_checks.KEYS),
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
