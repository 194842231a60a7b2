"""Figures: numbers as the metrics have them, every figure drawn where there is something to show."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from framework.interfaces.records import RequestRecord, StepRecord
from framework.records import analysis
from framework.records.analysis.cells import find, read_cell
from framework.records.analysis.figures import bars, curves, figures, latency, load, pareto, timeline, write_figures
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


def load_sweep(folder: Path) -> Path:
    """Two schedulers, each at loads of its own as a capacity search tries them, with limits and five seeds."""
    loads = {"prefill_first": (1, 2, 4, 8, 6), "chunked_prefill": (1, 2, 4, 3)}
    for scheduler, rates in loads.items():
        for rate in rates:
            for seed in range(5):
                slow = (0.95 + 0.05 * seed) * (1 if rate < max(rates) else 40)
                metrics = {
                    "ttft_s/p99": 0.1 * slow,
                    "tpot_s/p99": 0.01 * slow,
                    "output_tokens_per_s": rate * 50.0 + seed,
                }
                metrics["slo_attainment"] = 1.0 if rate < max(rates) else 0.3
                write_cell(
                    folder / f"{scheduler}{rate}{seed}",
                    scheduler=scheduler,
                    workload__rate_per_s=float(rate),
                    slo__ttft_s=1.0,
                    seed=seed,
                    metrics=metrics,
                )
    return folder


def test_latency_against_load_with_objective_knee_and_band(tmp_path: Path) -> None:
    comparison = analysis.compare([str(load_sweep(tmp_path))])
    drawn = {name: figure for name, _, figure in figures(comparison)}
    figure = drawn["latency_load"]
    ttft, tpot, share = figure.axes
    lines = {line.get_label(): line for line in ttft.get_lines()}
    assert lines["prefill_first"].get_xdata().tolist() == [1, 2, 4, 6, 8]
    assert lines["prefill_first"].get_ydata()[0] == pytest.approx(105)  # ms, the mean of five seeds
    assert ttft.get_ylabel() == "p99 TTFT (ms)"
    assert share.get_xlabel() == "request rate (requests/s)"
    assert set(lines["objective"].get_ydata()) == {1000}
    assert "objective" not in {line.get_label() for line in tpot.get_lines()}, "slo.tpot_s is null"
    stars = [line for line in ttft.get_lines() if line.get_marker() == "*" and len(line.get_xdata())]
    assert {float(star.get_xdata()[0]) for star in stars} == {6, 3}, "the last load before it rises"
    assert len({line.get_marker() for name, line in lines.items() if name in ("prefill_first", "chunked_prefill")}) == 2
    assert len(ttft.collections) == 2, "a band for each line"
    throughput = {line.get_label(): line for line in drawn["latency_throughput"].axes[0].get_lines()}
    assert throughput["chunked_prefill"].get_xdata() == pytest.approx([52, 102, 152, 202])


def test_a_figure_of_one_column_has_no_text_on_text_and_no_legend_on_data(tmp_path: Path) -> None:
    comparison = analysis.compare([str(load_sweep(tmp_path))])
    figure = load.draw(comparison, "workload.rate_per_s", against_throughput=False)
    assert figure is not None
    assert figure.get_figwidth() == load.COLUMN_INCHES
    figure.draw_without_rendering()
    (legend,) = figure.legends
    boxes = [legend.get_window_extent()]
    for panel in figure.axes:
        assert not boxes[0].overlaps(panel.get_window_extent())
        boxes += [panel.yaxis.label.get_window_extent(), panel.xaxis.label.get_window_extent()]
        inside = panel.get_window_extent().padded(1)
        ticks = [tick.get_window_extent() for tick in panel.get_yticklabels() if tick.get_text()]
        boxes += [box for box in ticks if inside.y0 <= (box.y0 + box.y1) / 2 <= inside.y1]
    boxes = [box for box in boxes if box.width > 1 and box.height > 1]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
    assert all(box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 for box in boxes)
    sizes = [text.get_fontsize() for text in figure.findobj(lambda one: hasattr(one, "get_fontsize"))]
    assert min(sizes) >= 6.5, "readable in a column"


def test_lines_that_are_the_same_are_one(tmp_path: Path) -> None:
    for scheduler in ("fair", "priority", "mlfq"):
        for rate in (1.0, 2.0, 4.0):
            slow = {"ttft_s/p99": 0.1 * rate * (2 if scheduler == "mlfq" else 1)}
            write_cell(tmp_path / f"{scheduler}{rate}", scheduler=scheduler, workload__rate_per_s=rate, metrics=slow)
    figure = load.draw(analysis.compare([str(tmp_path)]), "workload.rate_per_s", against_throughput=False)
    assert figure is not None
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {"fair = priority", "mlfq", "knee"}


def test_a_knee_is_where_a_curve_begins_to_rise() -> None:
    rates = np.linspace(1, 9, 9)
    queue = 1 / (10 - rates)  # the mean time in an M/M/1 queue that serves 10 per second
    chord = (queue[-1] - queue[0]) / (rates[-1] - rates[0])
    slopes = 1 / (10 - rates) ** 2  # where the slope is that of the chord, the distance to it is largest
    assert load.knee(list(zip(rates, queue, strict=True))) == int(np.argmin(np.abs(slopes - chord)))
    assert load.knee([(x, 2 * x) for x in rates]) is None
    assert load.knee([(1, 20), (2, 20.5), (3, 19.9), (4, 20.8)]) is None, "noise of a flat curve"
    assert load.knee([(1, 1), (2, 1), (3, 9)]) is None, "too few points"


def test_a_pareto_front_joins_no_two_loads(tmp_path: Path) -> None:
    for scheduler, gain in (("prefill_first", 1.0), ("chunked_prefill", 2.0)):
        for rate in (1.0, 2.0, 4.0):
            for blocks in (100, 200):
                metrics = {"ttft_s/p99": rate * blocks / gain, "output_tokens_per_s": rate * gain * blocks**0.5}
                write_cell(
                    tmp_path / f"{scheduler}{rate}{blocks}",
                    scheduler=scheduler,
                    workload__rate_per_s=rate,
                    engine__num_blocks=blocks,
                    metrics=metrics,
                )
    comparison = analysis.compare([str(tmp_path)], metrics=["output_tokens_per_s", "ttft_s/p99"])
    figure = pareto.draw(comparison)
    assert figure is not None
    panel = figure.axes[0]
    rate_of = {}
    for group in comparison.groups:
        (cell,) = group.cells
        at = (cell.metrics["ttft_s/p99"] * 1e3, cell.metrics["output_tokens_per_s"])
        rate_of[at] = (group.values["workload.rate_per_s"], group.values["scheduler"])
    fronts = [line for line in panel.get_lines() if line.get_drawstyle() == "steps-post"]
    assert len(fronts) == 6, "one for each scheduler at each rate"
    for line in fronts:
        joined = {rate_of[at] for at in zip(line.get_xdata(), line.get_ydata(), strict=True)}
        assert len(joined) == 1
    assert not figure.legends[0].get_window_extent().overlaps(panel.get_window_extent())
    boxes = [Text.get_window_extent(text) for text in panel.texts]  # without the line to its point
    assert {text.get_text() for text in panel.texts} >= {"1 / 100", "4 / 200"}, "the colour says the scheduler"
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
    assert all(panel.bbox.x0 <= box.x0 and box.x1 <= panel.bbox.x1 for box in boxes), "none covers an axis"


def test_one_cell_has_a_latency_and_a_timeline(tmp_path: Path) -> None:
    write_cell(tmp_path / "0")
    assert [name for name, _, _ in figures(analysis.compare(tmp_path))] == ["latency_cdf", "timeline"]
    assert len(find([tmp_path])[0]) == 1
