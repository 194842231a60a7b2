"""Tables and figures that can be read: few columns, words with units, names that cover nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from framework.__main__ import main
from framework.records import analysis
from framework.records.analysis.figures import bars, pareto
from framework.records.analysis.labels import key_label, label
from framework.records.metrics.summary import summarize
from tests.analysis.records import write_cell, write_sweep

METRIC = "ttft_s/p99"


def unlike_runs(folder: Path) -> Path:
    """Five runs that were made one by one: they differ in 20 keys."""
    for i in range(5):
        odd = {f"engine__key_{k:02}": i if k < 19 else i // 2 for k in range(20)}
        scheduler = "fifo" if i < 3 else "sjf"
        write_cell(folder / f"run{i}", scheduler=scheduler, metrics={METRIC: 1.0 + i}, **odd)
    return folder


def test_at_most_eight_columns_that_tell_runs_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = unlike_runs(tmp_path)
    result = analysis.compare(folder, metrics=[METRIC])
    assert len(result.by) == 21
    assert len(result.shown) == 8
    assert "scheduler" in result.shown
    assert len({group.name for group in result.groups}) == 5
    assert main(["compare", str(folder), "--metric", METRIC]) == 0
    shown = capsys.readouterr().out
    assert "13 more keys differ and have no column: " in shown
    assert "--all-columns" in shown
    assert len(analysis.compare(folder, metrics=[METRIC], all_columns=True).shown) == 21
    chosen = [f"engine.key_{k:02}" for k in range(12)]
    assert analysis.compare(folder, metrics=[METRIC], by=chosen).shown == chosen


def test_few_keys_are_all_shown(tmp_path: Path) -> None:
    result = analysis.compare(write_sweep(tmp_path, seeds=1))
    assert result.shown == result.by == ["scheduler"]
    assert not any("no column" in note for note in result.notes)


def test_runs_shows_every_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlike_runs(tmp_path)
    write_cell(tmp_path / "broken", status="failed", reason="boom\x1b[2J", scheduler="lru")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "summary.json").write_text("{")
    assert main(["runs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for text in (*(f" run{i} " for i in range(5)), " broken ", "fifo", "sjf", f"{tmp_path / 'broken'}: failed: boom"):
        assert text in shown
    assert f"left out: {tmp_path / 'half'}: summary.json cannot be read" in shown
    assert "more keys differ: " in shown
    assert "\x1b" not in shown
    assert main(["runs", str(tmp_path), "--key", "engine.key_07", "--metric", "e2e_s/max"]) == 0
    shown = capsys.readouterr().out
    assert "engine.key_07" in shown
    assert "e2e_s/max" in shown
    assert main(["runs", str(tmp_path), "--csv"]) == 0
    assert capsys.readouterr().out.startswith("folder,status,reason,")
    assert main(["runs", str(tmp_path), "--key", "nonsense"]) == 2


def test_words_and_units() -> None:
    assert label("ttft_s/p99").title == "p99 TTFT (ms), less is better"
    assert label("output_tokens_per_s").title == "output throughput (tokens/s), more is better"
    assert label("client/a/b/ttft_s/mean").text == "mean TTFT of a/b (ms)"
    assert label("itl_s/count").title == "values of ITL"
    assert label("of_another_program").title == "of_another_program"
    assert key_label("workload.rate_per_s") == "request rate (requests/s)"
    bare = [name for name in summarize([], []) if label(name).text.endswith(("_s", "_gib"))]
    assert bare == [], "a unit in a name is a unit in words on an axis"


def test_bars_are_in_the_unit_that_their_title_says(tmp_path: Path) -> None:
    for i, scheduler in enumerate(("fifo", "sjf")):
        write_cell(tmp_path / scheduler, scheduler=scheduler, metrics={METRIC: 0.25 * (i + 1)})
    figure = bars.draw(analysis.compare(tmp_path, metrics=[METRIC]))
    assert figure is not None
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([250, 500])


@pytest.mark.parametrize("num", [4, 13])
def test_names_of_points_cover_nothing(tmp_path: Path, num: int) -> None:
    """Points in a heap, as policies that differ little are."""
    rng = np.random.default_rng(2)
    for i in range(num):
        x, y = 0.05 + rng.normal(0, 0.0004), 100 + rng.normal(0, 0.2)
        metrics = {METRIC: float(x), "output_tokens_per_s": float(y)}
        write_cell(tmp_path / str(i), scheduler=f"a_long_name_of_a_policy_{i}", metrics=metrics)
    write_cell(tmp_path / "far", scheduler="far", metrics={METRIC: 0.5, "output_tokens_per_s": 50.0})
    figure = pareto.draw(analysis.compare(tmp_path, metrics=[METRIC, "output_tokens_per_s"]))
    assert figure is not None
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without the line to the point
    assert len(boxes) == num + 1
    overlaps = [(i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes) if i < j and a.padded(-1).overlaps(b)]
    assert overlaps == []
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)
