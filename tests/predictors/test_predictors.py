"""What predictors learn, what they expect, and what the record says of that."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, kstest, norm

from framework.app.cells import run as run_here
from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.engine.request import Request
from framework.execution.policies import build_policies
from framework.interfaces.errors import IncompatibleError, PluginError
from framework.interfaces.predictor import LengthDistribution, Predictor
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.scheduler import RequestView
from framework.records.metrics.summary import summarize
from framework.registry import PREDICTORS
from framework.registry.discovery import discover
from framework.toolkit.predictors.lengths import KnownLength
from framework.toolkit.schedulers.output_length import remaining_tokens
from plugins.eviction.lru import LRU
from plugins.predictors.category_mean import CategoryMean
from plugins.predictors.histogram import Histogram
from plugins.predictors.noisy import Noisy
from plugins.schedulers.chunked_prefill import ChunkedPrefill
from plugins.schedulers.shortest_first import ShortestFirst
from tests.engine.shadow import make_engine
from tests.metrics.test_summary import request as record_of_request

discover()


def a_request(number: int = 0, **fields: Any) -> Request:
    engine = make_engine(ChunkedPrefill(), LRU())
    spec = RequestSpec(prompt_token_ids=[1, 2], params=SamplingParams(max_tokens=90), **fields)
    return engine.intake.build(number, spec, arrival_s=0.0)


def taught(predictor: Predictor, lengths: list[int], **fields: Any) -> Predictor:
    for length in lengths:
        request = a_request(**fields)
        request.num_known += length
        predictor.on_finish(request)
    return predictor


@pytest.mark.parametrize(
    ("plugin", "key"), [(Histogram, "initial_sigma"), (CategoryMean, "initial_sigma"), (Noisy, "error")]
)
def test_a_spread_that_overflows_is_refused(plugin: Any, key: str) -> None:
    with pytest.raises(ValueError, match=f"predictor.{key}=10.5 must be .*10; "):
        plugin(**{key: 10.5})
    predicted = plugin(**{key: 10.0}).predict(a_request())
    assert predicted.quantile(0.99) < predicted.mean < float("inf")


def test_a_category_mean_is_the_mean_of_what_has_ended() -> None:
    predictor = CategoryMean(initial_tokens=50)
    assert predictor.predict(a_request()).mean == pytest.approx(50)
    taught(taught(predictor, [10, 20, 40], category="chat"), [400, 800], category="code")
    for category, lengths in (("chat", [50, 10, 20, 40]), ("code", [50, 400, 800]), ("other", [50])):
        predicted = predictor.predict(a_request(category=category))
        assert predicted.mean == pytest.approx(np.mean(lengths))
        if len(lengths) >= 3:
            assert predicted.sigma == pytest.approx(
                np.sqrt(np.log(1 + np.var(lengths, ddof=1) / np.mean(lengths) ** 2))
            )


@pytest.mark.parametrize("by", ["category", "client", "session"])
def test_a_histogram_remembers_the_last_of_each_kind(by: str) -> None:
    predictor = Histogram(by=by, window=4, least=2)  # type: ignore[arg-type]
    before = predictor.predict(a_request())
    taught(taught(predictor, [90, 90, 1, 2, 3, 4], **{by: "a"}), [70], **{by: "b"})
    assert predictor.predict(a_request(**{by: "a"})).mean == np.mean([1, 2, 3, 4])
    assert predictor.predict(a_request(**{by: "b"})).mean == np.mean([2, 3, 4, 70]), "too few of its own: those of all"
    assert before.mean == Histogram().predict(a_request()).mean, "what was predicted stays"


def test_the_error_of_a_noisy_predictor_is_log_normal_and_calibrated() -> None:
    predictor, length, request = Noisy(error=0.5, seed=3), 100_000, a_request()
    medians, within = [], 0
    for number in range(2000):
        request.id = number
        predictor.on_true_length(request, length)
        predicted = predictor.predict(request)
        medians.append(predicted.quantile(0.5))
        within += length <= predicted.quantile(0.9)
    assert kstest([log(median / length) for median in medians], norm(scale=0.5).cdf).pvalue > 0.001
    assert within / 2000 == pytest.approx(0.9, abs=0.02)


def test_it_learns_from_requests_that_came_to_their_end_alone() -> None:
    ended: list[tuple[int, int]] = []

    class Listens(CategoryMean):
        def on_finish(self, request: RequestView) -> None:
            ended.append((request.id, request.num_output))

    engine = make_engine(ChunkedPrefill(), LRU(), predictor=Listens())
    for length in (3, 30, 5):
        params = SamplingParams(max_tokens=90, ignore_eos=True)
        engine.add_request(RequestSpec(prompt_token_ids=[7], params=params, output_tokens=length))
    engine.step()
    engine.abort(1)
    while engine.has_work:
        engine.step()
    assert ended == [(0, 3), (2, 5)]


def test_what_is_expected_follows_the_tokens_that_came() -> None:
    class Counts(Histogram):
        num_updates = 0

        def update(self, request: RequestView, at_arrival: LengthDistribution) -> LengthDistribution:
            self.num_updates += 1
            return super().update(request, at_arrival)

    predictor = Counts(least=2)
    taught(predictor, [4, 10, 12])
    engine = make_engine(ChunkedPrefill(), LRU(), predictor=predictor)
    engine.add_request(RequestSpec(prompt_token_ids=[7], params=SamplingParams(max_tokens=20, ignore_eos=True)))
    request = engine.queue.waiting[0]
    expected = {0: 26 / 3, 4: 11, 11: 12, 15: 16}
    while engine.has_work:
        assert request.predicted is not None
        if request.num_output in expected:
            assert request.predicted.mean == pytest.approx(expected.pop(request.num_output))
        assert remaining_tokens(request) >= 1
        engine.step()
    assert not expected
    assert predictor.num_updates == 19, "once per token, however often it is asked"


def test_a_predictor_that_is_not_asked_computes_nothing_per_token() -> None:
    class Fails(Histogram):
        def update(self, request: RequestView, at_arrival: LengthDistribution) -> LengthDistribution:
            raise AssertionError

    engine = make_engine(ShortestFirst(), LRU(), predictor=Fails())
    engine.add_request(RequestSpec(prompt_token_ids=[7], params=SamplingParams(max_tokens=20, ignore_eos=True)))
    while engine.has_work:
        engine.step()


def test_nonsense_names_the_predictor() -> None:
    class Nonsense(CategoryMean):
        def predict(self, request: RequestView) -> LengthDistribution:
            return KnownLength(float("nan"))

    engine = make_engine(ChunkedPrefill(), LRU(), predictor=Nonsense())
    with pytest.raises(PluginError, match=r"predictor Nonsense: of request 0 it expects mean=nan"):
        engine.add_request(RequestSpec(prompt_token_ids=[7], params=SamplingParams(max_tokens=2)))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("noisy", {"error": -0.5}, r"predictor\.error=-0\.5"),
        ("category_mean", {"initial_tokens": 0.0}, r"predictor\.initial_tokens=0\.0"),
        ("histogram", {"window": 0}, r"predictor\.window=0"),
        ("histogram", {"window": 3, "least": 4}, r"predictor\.least=4 must be at most predictor\.window=3"),
        ("histogram", {"by": "mood"}, r"predictor\.by='mood'"),
    ],
)
def test_a_wrong_value_is_named(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PREDICTORS.build({"name": name, **parameters})


def test_the_metrics_of_predictions() -> None:
    rows = [
        record_of_request(num_output_tokens=n, predicted_tokens=mean, predicted_p50=mean - 1, predicted_p90=mean + 3)
        for n, mean in ((4, 6.0), (8, 6.0), (9, 12.0), (20, 12.0), (11, 13.0))
    ]
    metrics = summarize(rows, [])
    assert metrics["length_error_tokens/mean"] == pytest.approx((2 + 2 + 3 + 8 + 2) / 5)
    assert metrics["length_error_tokens/count"] == 5
    assert metrics["length_bias_tokens"] == pytest.approx((2 - 2 + 3 - 8 + 2) / 5)
    assert (metrics["length_coverage/p50"], metrics["length_coverage/p90"]) == (3 / 5, 4 / 5)
    tau = kendalltau([6, 6, 12, 12, 13], [4, 8, 9, 20, 11]).statistic
    assert metrics["length_rank_correlation"] == pytest.approx(tau)
    assert summarize([record_of_request()], [])["length_bias_tokens"] is None


SMALL = ["tracker=files", "model=tiny", "executor=simulated", "workload=synthetic", "workload.num_requests=40"]


def run(folder: Path, *overrides: str) -> Any:
    record = run_here([*SMALL, *overrides], folder=folder / "cell")
    assert record.status == "completed", record.reason
    return record


def test_the_record_has_what_was_predicted(tmp_path: Path) -> None:
    record = run(tmp_path / "a", "predictor=oracle")
    assert all(r.predicted_tokens == r.num_output_tokens for r in record.requests)
    assert (record.metrics["length_error_tokens/max"], record.metrics["length_coverage/p50"]) == (0, 1)
    nothing = run(tmp_path / "b")
    assert {r.predicted_tokens for r in nothing.requests} == {None}


@pytest.mark.parametrize("kind", ["predictor=noisy", "scheduler=random", "eviction=random"])
def test_a_plugins_seed_follows_the_seed_unless_it_is_set(kind: str) -> None:
    group = kind.partition("=")[0]
    assert compose([kind, "seed=7"])[group].seed == 7
    assert compose([kind, "seed=7", f"{group}.seed=3"])[group].seed == 3
    assert PREDICTORS.get("noisy")().seed == 0, "without a configuration it is what its author chose"


def test_a_policy_that_needs_predictions_says_so(tmp_path: Path) -> None:
    path = tmp_path / "needy.py"
    path.write_text(
        "from framework.registry import SCHEDULERS\n"
        "from plugins.schedulers.chunked_prefill import ChunkedPrefill\n"
        "@SCHEDULERS.register('needy')\n"
        "class Needy(ChunkedPrefill):\n"
        "    needs_prediction = True\n"
    )
    cfg = compose([*SMALL, f"plugins=[{path}]", "scheduler=needy"])
    with pytest.raises(IncompatibleError, match="needs predicted output lengths, and predictor=none has none"):
        build_policies(settings_of(cfg))
    other = compose([*SMALL, f"plugins=[{path}]", "scheduler=needy", "predictor=oracle"])
    assert build_policies(settings_of(other)).predictor
