"""Percentiles of choice, spread, counts, attainment of objectives, and which percentiles are worth nothing."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from framework.app.progress import print_summary
from framework.config.check import check
from framework.config.compose import compose
from framework.records.metrics.percentiles import needed_count, percent_of
from framework.records.metrics.slo import Slo
from framework.records.metrics.summary import summarize, unknown_metric
from tests.analysis.records import requests, steps


def test_statistics_equal_numpys() -> None:
    rows = requests(num=40)
    metrics = summarize(rows, steps(), percentiles=(5, 50, 95, 99.9))
    ttft_s = [r.first_token_s - r.arrival_s for r in rows if r.finish_reason == "length" and r.first_token_s]
    assert [name for name in metrics if name.startswith("ttft_s/")] == [
        *("ttft_s/mean", "ttft_s/p5", "ttft_s/p50", "ttft_s/p95", "ttft_s/p99.9"),
        *("ttft_s/std", "ttft_s/max", "ttft_s/count"),
    ]
    for percent in (5, 50, 95, 99.9):
        assert metrics[f"ttft_s/p{percent:g}"] == pytest.approx(np.percentile(ttft_s, percent))
    assert metrics["ttft_s/std"] == pytest.approx(np.std(ttft_s))
    assert metrics["ttft_s/max"] == max(ttft_s)
    assert (metrics["ttft_s/count"], metrics["itl_s/count"]) == (40, 80)
    assert summarize([], [])["ttft_s/count"] == 0
    assert unknown_metric("ttft_s/p95") is not None
    assert unknown_metric("client/a/ttft_s/p95", (95,)) is unknown_metric("ttft_s/p95", (95,)) is None


def test_attainment_counts_every_request() -> None:
    """Of ten requests seven complete, four of them in time; one is aborted and two are rejected."""
    rows = requests(num=7)  # TTFTs of 0.1 to 0.7 s, and an aborted one
    rows += [dataclasses.replace(rows[0], finish_reason="rejected", request_id=90 + i) for i in range(2)]
    metrics = summarize(rows, [], slo=Slo(ttft_s=0.45))
    assert metrics["slo_attainment"] == pytest.approx(4 / 10)
    assert summarize(rows, [])["slo_attainment"] is None
    assert summarize(rows, [], slo=Slo(ttft_s=0.45, e2e_s=0.35))["slo_attainment"] == pytest.approx(1 / 10)


@pytest.mark.parametrize(("text", "message"), [("[0]", "above 0"), ("[100]", "below 100"), ("[]", "at least one")])
def test_what_is_no_percentile_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"metrics\.percentiles=.*{message}"):
        check(compose(["model=tiny", f"metrics.percentiles={text}"]))
    check(compose(["model=tiny", "metrics.percentiles=[50,99.9]", "objective=[ttft_s/p99.9]"]))
    with pytest.raises(ValueError, match=r"ttft_s/p99\b"):
        check(compose(["model=tiny", "metrics.percentiles=[50]", "objective=[ttft_s/p99]"]))


def test_how_many_values_a_percentile_needs() -> None:
    assert [needed_count(p) for p in (50, 90, 95, 99, 99.9, 1)] == [2, 10, 20, 100, 1000, 100]
    assert [percent_of(s) for s in ("p50", "p99.9", "mean", "max", "pxx", "p")] == [50, 99.9, None, None, None, None]


@pytest.mark.parametrize(("num", "marked"), [(6, True), (120, False)])
def test_a_p99_of_a_few_is_marked_on_the_screen(num: int, marked: bool) -> None:
    console = Console(file=io.StringIO(), width=120)
    print_summary(summarize(requests(num=num), steps()), console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") > 1}
    assert ("†" in rows["TTFT (first token)"]) == marked
    assert ("† of too few values (n)" in text) == marked
    assert f" {num} │" in rows["TTFT (first token)"]
