"""An attention backend that approximates is never shown as if it did not: in `check`, in a record, in a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from framework import run
from framework.conformance.checks import attention
from framework.conformance.kit.finding import Budget
from framework.conformance.run import check_plugins
from framework.records.analysis.metric_names import with_quality
from framework.records.analysis.pairing import compare_cells
from framework.records.metrics.quality import ATTENTION
from framework.records.record import Record
from tests.analysis.records import write_cell

WINDOW = Path(__file__).with_name("window.py")
INEXACT = {"attention_exact": False}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy, since a file is loaded once per process, and its plugin does not outlive the test."""
    copy = tmp_path / "window.py"
    copy.write_text(WINDOW.read_text())
    return copy


def change(source: Path, old: str, new: str) -> None:
    assert old in source.read_text()
    source.write_text(source.read_text().replace(old, new))


def cell(folder: Path, source: Path) -> Record:
    small = ["model=tiny", "executor.device=cpu", "engine.max_model_len=40", "tracker=files", "workload=synthetic"]
    small += ["workload.num_requests=2", "workload.prompt_tokens_min=20", "workload.prompt_tokens_max=20"]
    small += ["workload.output_tokens_min=4", "workload.output_tokens_max=4", "workload.rate_per_s=1000"]
    return run([*small, f"plugins=[{source}]", "attention=window"], folder=folder)


def test_its_record_has_the_quality_and_says_so(tmp_path: Path, source: Path) -> None:
    record = cell(tmp_path / "cell", source)
    assert record.status == "completed"
    assert record.reason.startswith("attention=window is not exact: perplexity ")
    assert record.effective["attention_exact"] is False
    assert record.effective["attention_error"] > 0.15
    own, exact, divergence = (record.metrics[name] for name in ATTENTION)
    assert own is not None
    assert exact is not None
    assert divergence is not None
    assert divergence > 0.01
    assert own != pytest.approx(exact, rel=1e-3)
    comparison = compare_cells([tmp_path], metrics=["duration_s"])
    assert comparison.metrics == ["duration_s", *ATTENTION]
    assert {row.metric for row in comparison.rows} == set(comparison.metrics)


def test_one_that_does_not_say_so_fails(tmp_path: Path, source: Path) -> None:
    change(source, "exact = False", "exact = True")
    record = cell(tmp_path / "cell", source)
    assert record.status == "failed"
    assert "attention=window: its output is" in record.reason
    assert "set `exact = False`" in record.reason


def test_a_window_that_no_prompt_reaches_changes_nothing(tmp_path: Path, source: Path) -> None:
    change(source, "num_tokens: int = 16", "num_tokens: int = 1000")
    record = cell(tmp_path / "cell", source)
    own, exact, divergence = (record.metrics[name] for name in ATTENTION)
    assert own == pytest.approx(exact, rel=1e-4)
    assert divergence == pytest.approx(0, abs=1e-5)


def test_check_reports_how_far_it_is_off(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_NAMED", (((0, 9),), ((30, 1), (3, 2))))
    budget = Budget(num_examples=2, search_s=30, shrink_s=0)
    (findings,) = check_plugins(["attention=window", f"plugins=[{source}]"], budget).values()
    assert [one.status for one in findings[:2]] == ["holds", "holds"]
    assert findings[0].rule.startswith(attention.APPROXIMATE_RULE)
    assert "it is not exact, and says so: relative error of the output up to" in findings[1].detail


def test_check_still_refuses_what_is_no_number(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(source, ".softmax(0)", ".softmax(0) / 0")
    monkeypatch.setattr(attention, "_NAMED", (((0, 9),),))
    budget = Budget(num_examples=2, search_s=30, shrink_s=0)
    (findings,) = check_plugins(["attention=window", f"plugins=[{source}]"], budget).values()
    assert [one.status for one in findings[:2]] == ["fails", "fails"]
    assert "numbers that are not finite" in findings[1].detail


def test_a_cell_of_unknown_quality_is_not_compared(tmp_path: Path) -> None:
    write_cell(tmp_path / "exact", attention="sdpa")
    failed = {"quality_error": "ValueError: no room"}
    write_cell(tmp_path / "window", attention="window", effective=INEXACT | failed, pace_s=0.01)
    comparison = compare_cells([tmp_path])
    assert [one.folder.name for one in comparison.cells] == ["exact"]
    assert any(
        "attention=window is not exact and its quality is not known (ValueError: no room)" in one
        for one in comparison.warnings
    )
    with pytest.raises(ValueError, match="nothing is left to compare"):
        compare_cells([tmp_path / "window"])


def test_the_columns_are_added_once(tmp_path: Path) -> None:
    quality = dict.fromkeys(ATTENTION, 1.0)
    write_cell(tmp_path / "window", attention="window", effective=INEXACT, metrics=quality)
    write_cell(tmp_path / "exact", attention="sdpa")
    comparison = compare_cells([tmp_path], metrics=["perplexity", "duration_s"])
    assert comparison.metrics == ["perplexity", "duration_s", "perplexity_exact", "kl_exact_nats"]
    assert with_quality(["duration_s"], [one for one in comparison.cells if one.folder.name == "exact"]) == [
        "duration_s"
    ]
