"""Figures: numbers as the metrics have them, every figure drawn where there is something to show."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from framework.interfaces.records import RequestRecord, StepRecord
from framework.records import analysis
from framework.records.analysis.cells import find, read_cell
from framework.records.analysis.figures import bars, curves, figures, latency, pareto, timeline, write_figures
from framework.records.tables import write_rows
from tests.analysis.records import requests, steps, write_cell, write_sweep


def capacity_sweep(folder: Path) -> Path:
    for eviction, gain in (("lru", 0.2), ("belady", 0.4)):
        for blocks in (50, 100, 400):
            rate = gain * blocks / 400
            name = f"{eviction}{blocks}"
            write_cell(
                folder / name, eviction=eviction, engine__num_blocks=blocks, metrics={"prefix_cache_hit_rate": rate}
            )
    return folder


def test_every_figure_of_a_sweep(tmp_path: Path) -> None:
    comparison = analysis.compare([str(write_sweep(tmp_path / "sweep"))])
    assert [name for name, _, _ in figures(comparison)] == ["bars", "pareto", "latency_cdf", "timeline"]
    paths = write_figures(comparison, tmp_path)
    for path in paths:
        text = path.read_text()
        assert text.count("<svg") == 1
        assert "chunked_prefill" in text
    assert write_figures(comparison, tmp_path, "png")[0].read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("metrics", [["ttft_s/p99"], ["ttft_s/p99", "output_tokens_per_s", "tpot_s/mean"]])
def test_nothing_is_cut_off(tmp_path: Path, metrics: list[str]) -> None:
    figure = bars.draw(analysis.compare([str(write_sweep(tmp_path / "sweep"))], metrics=metrics))
    assert figure is not None
    figure.canvas.draw()
    titles = [panel.title for panel in figure.axes] + [panel._left_title for panel in figure.axes]  # type: ignore[attr-defined]
    for text in (figure._supxlabel, *titles):  # type: ignore[attr-defined]
        extent = text.get_window_extent()
        assert extent.x0 >= 0
        assert extent.x1 <= figure.bbox.x1


def test_latencies_are_those_of_the_metrics(tmp_path: Path) -> None:
    cell = read_cell(write_cell(tmp_path / "0", pace_s=0.25))
    found = latency.latencies([cell], [])
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        assert found[name].mean() == pytest.approx(cell.metrics[f"{name}/mean"])
        assert np.quantile(found[name], 0.99) == pytest.approx(cell.metrics[f"{name}/p99"])


def test_the_timeline_of_a_fleet_shows_all_of_it(tmp_path: Path) -> None:
    """Four replicas with 50 running requests each are 200; a queue of 3 that lives for a moment is seen."""
    cell = read_cell(write_cell(tmp_path / "0"))
    four = [dataclasses.replace(one, replica=r, num_running=50, num_waiting=0) for one in steps() for r in range(4)]
    four[9].num_waiting = 3
    write_rows(cell.steps, four, StepRecord)
    write_rows(cell.requests, [dataclasses.replace(requests()[-1], replica=r) for r in range(4)], RequestRecord)
    figure = timeline.draw_rows([("fleet", [cell])])
    assert figure is not None
    tokens, states, _ = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in states.get_lines()}
    assert drawn["running"][:-1] == pytest.approx(200)
    assert len(states.get_lines()) == 2 + 2 * 4
    shades = [shade.get_datalim(states.transData).y1 for shade in states.collections]
    assert sorted(shades) == pytest.approx([3, 200])
    edges_s = states.get_lines()[0].get_xdata()
    assert np.diff(edges_s) == pytest.approx(edges_s[1])
    tops = [shade.get_datalim(tokens.transData).y1 for shade in tokens.collections]
    assert tops == pytest.approx([4 * 16 / 0.09, 4 * 18 / 0.09])  # tokens per second: prefill, decode on top
    assert "4 replicas" in tokens.get_ylabel()


def test_pareto_front() -> None:
    points = [(1.0, 5.0), (2.0, 4.0), (2.0, 9.0), (3.0, 9.0), (0.5, 1.0)]
    beaten = {i for i, (x, y) in enumerate(points) if any((u <= x and v >= y and (u, v) != (x, y)) for u, v in points)}
    assert set(pareto.front(points)) == set(range(len(points))) - beaten == {0, 2, 4}


def test_hit_rate_against_capacity_with_the_bound(tmp_path: Path) -> None:
    comparison = analysis.compare([str(capacity_sweep(tmp_path))])
    drawn = {name: figure for name, _, figure in figures(comparison)}
    panel = drawn["hit_rate_capacity"].axes[0]
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert set(lines) == {"lru", "belady (bound)"}
    assert lines["belady (bound)"].get_linestyle() == "--"
    assert lines["lru"].get_xdata().tolist() == [50, 100, 400]
    assert lines["lru"].get_ydata() == pytest.approx([0.025, 0.05, 0.2])


def test_the_bound_as_a_metric(tmp_path: Path) -> None:
    for blocks in (50, 100, 400):
        rates = {"prefix_cache_hit_rate": blocks / 1000, "prefix_cache_hit_rate/belady": blocks / 500}
        write_cell(tmp_path / str(blocks), engine__num_blocks=blocks, metrics=rates)
    figure = curves.draw(analysis.compare(tmp_path), curves.CAPACITY, curves.HIT_RATES)
    assert figure is not None
    bound = figure.axes[0].get_lines()[-1]
    assert bound.get_linestyle() == "--"
    assert bound.get_ydata() == pytest.approx([0.1, 0.2, 0.8])


def test_one_cell_has_a_latency_and_a_timeline(tmp_path: Path) -> None:
    write_cell(tmp_path / "0")
    assert [name for name, _, _ in figures(analysis.compare(tmp_path))] == ["latency_cdf", "timeline"]
    assert len(find([tmp_path])[0]) == 1
