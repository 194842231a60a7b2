"""What may be compared: equal files, equal requests, equal conditions, and repeats that are repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from framework.app.experiment import run_cell
from framework.config.compose import compose
from framework.records import analysis
from framework.records.analysis.figures import bars, curves
from framework.records.analysis.tables import print_comparison
from framework.records.record import cell_id
from framework.records.tracking.base import CellInfo
from framework.registry.discovery import discover
from tests.analysis.records import write_cell

METRIC = "ttft_s/p99"
NOISE = [0.3, -0.2, 0.1, 0.4, -0.35]
ONE, OTHER = "1" * 64, "2" * 64


def five_seeds(folder: Path, shift: float = 0.0, **changes: Any) -> None:
    for seed, noise in enumerate(NOISE):
        write_cell(folder / f"s{seed}", metrics={METRIC: 1 + noise + shift}, seed=seed, **changes)


def of(result: analysis.Comparison, scheduler: str) -> Any:
    (row,) = [row for row in result.rows if row.group.values["scheduler"] == scheduler]
    return row


def trace(path: str, sha256: str) -> dict[str, Any]:
    inputs = {"workload.path": {"path": f"/data/{path}", "sha256": sha256}}
    return {"workload__path": path, "effective": {"inputs": inputs}}


def test_the_same_file_under_another_path_is_the_same(tmp_path: Path) -> None:
    five_seeds(tmp_path / "a", scheduler="fifo", **trace("a.jsonl", ONE))
    five_seeds(tmp_path / "b", shift=0.1, scheduler="sjf", **trace("copies/b.jsonl", ONE))
    result = analysis.compare(tmp_path, metrics=[METRIC])
    assert result.by == ["scheduler"]
    assert result.warnings == []
    assert of(result, "sjf").test == "paired"


@pytest.mark.parametrize("of_old_records", [False, True])
def test_other_content_under_the_same_path_is_another_workload(tmp_path: Path, of_old_records: bool) -> None:
    """Half of the cells ran before the trace was rewritten: they are no repeats of the other half."""
    for sha256, shift in ((ONE, 0.0), (OTHER, 5.0)):
        what = trace("a.jsonl", sha256)
        if of_old_records:
            what["effective"] = {"workload": {"trace_sha256": sha256}}
        five_seeds(tmp_path / sha256[:4], shift=shift, scheduler="fifo", **what)
    result = analysis.compare(tmp_path, metrics=[METRIC])
    assert result.by == ["workload.path"]
    assert [group.values["workload.path"] for group in result.groups] == [
        "a.jsonl (sha256 11111111)",
        "a.jsonl (sha256 22222222)",
    ]
    assert [row.test for row in result.rows] == ["", "welch"]
    assert "no test between them is paired" in result.warnings[0]


def test_files_that_no_key_names_are_conditions(tmp_path: Path) -> None:
    for name, sha256 in (("fifo", ONE), ("sjf", OTHER)):
        inputs = {"cost_model/h200.json": {"path": f"/{name}/h200.json", "sha256": sha256}}
        five_seeds(tmp_path / name, scheduler=name, effective={"inputs": inputs})
    (warning,) = analysis.compare(tmp_path, metrics=[METRIC]).warnings
    assert (
        "effective.inputs.cost_model/h200.json (2222222222222222 in scheduler=sjf against 1111111111111111)" in warning
    )


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("dtype", ("bfloat16", "float32")),
        ("num_blocks", (100, 4000)),
        ("graph", ("eager", "mixed")),
        ("attention", ("flash", "sdpa")),
        ("kernels", ({"layers": "fused"}, {"layers": "plain"})),
        ("max_model_len", (2048, 4096)),
        ("tp", (1, 2)),
        ("anything_new", (False, True)),
    ],
)
@pytest.mark.parametrize("by", [[], ["scheduler"]])
def test_whatever_ran_differently_and_is_not_the_axis_is_named(
    tmp_path: Path, key: str, values: tuple[Any, Any], by: list[str]
) -> None:
    five_seeds(tmp_path / "a", scheduler="fifo", effective={key: values[0]})
    five_seeds(tmp_path / "b", scheduler="sjf", effective={key: values[1]})
    result = analysis.compare(tmp_path, metrics=[METRIC], by=by)
    (warning,) = result.warnings
    assert warning.startswith("what ran differs in more than scheduler, and the effects are of all of it: ")
    assert f"effective.{key}" in warning
    # Within one group too.
    five_seeds(tmp_path / "a2", scheduler="fifo", study__question="again", effective={key: values[1]})
    result = analysis.compare([tmp_path / "a", tmp_path / "a2"], metrics=[METRIC], by=["scheduler"])
    assert f"effective.{key}" in result.warnings[0]
    assert "within scheduler=fifo" in result.warnings[0]


@pytest.mark.parametrize(
    ("changes", "effective"),
    [
        ({"executor__dtype": ("bfloat16", "float32")}, {"dtype": ("bfloat16", "float32")}),
        ({"engine__num_blocks": (100, 400)}, {"num_blocks": (100, 400)}),
        ({"attention": ({"name": "flash"}, {"name": "sdpa"})}, {"attention": ("flash", "sdpa")}),
        (
            {"study__arm": ("full", "narrow"), "executor__dtype": ("bfloat16", "float32")},
            {"dtype": ("bfloat16", "float32")},
        ),
        ({"scheduler": ("fifo", "sjf")}, {"load_s": (1.0, 2.0), "weights_reused": (False, True), "kv_error": (1, 2)}),
    ],
)
def test_the_axis_itself_and_what_was_only_measured_are_not(tmp_path: Path, changes: Any, effective: Any) -> None:
    for i in (0, 1):
        one = {key: values[i] for key, values in changes.items()}
        five_seeds(tmp_path / str(i), **one, effective={key: values[i] for key, values in effective.items()})
    assert analysis.compare(tmp_path, metrics=[METRIC]).warnings == []


@pytest.mark.parametrize(
    ("environment", "warning"),
    [
        ({"python": ("3.11", "3.12")}, "different versions of python are compared: 3.11, 3.12"),
        ({"cuda": ("12.8", "13.0")}, "different versions of cuda"),
        ({"driver": ("570", "580")}, "machines that differ in driver"),
        ({"code": ({"framework": "1" * 64}, {"framework": "2" * 64})}, "2 versions of the code are compared"),
        ({"code": ({"scheduler": "1" * 64}, {"scheduler": "2" * 64})}, None),  # fifo's and sjf's
        ({"code": ({"eviction": "1" * 64}, {"eviction": "2" * 64})}, "2 versions of eviction=lru are compared"),
        ({"git_revision": ("b" * 40, "c" * 40)}, "2 code revisions"),
        ({"git_revision": ("b" * 40, "c" * 40), "code": ({"framework": "1"}, {"framework": "1"})}, None),
    ],
)
def test_versions_and_machines(tmp_path: Path, environment: dict[str, Any], warning: str | None) -> None:
    for i, scheduler in enumerate(("fifo", "sjf")):
        where = {key: values[i] for key, values in environment.items()}
        five_seeds(tmp_path / scheduler, scheduler=scheduler, environment=where)
    warnings = analysis.compare(tmp_path, metrics=[METRIC]).warnings
    assert len(warnings) == (warning is not None)
    assert all(str(warning) in one for one in warnings)


def test_cells_that_served_other_requests_are_not_compared(tmp_path: Path) -> None:
    """One policy lost lines of the trace that the other served: 40 against 60 requests."""
    for scheduler, num in (("fifo", 60), ("sjf", 40)):
        for seed, noise in enumerate(NOISE):
            digest = f"{scheduler if seed < 4 else 'both'}{seed}"
            write_cell(
                tmp_path / f"{scheduler}{seed}",
                scheduler=scheduler,
                seed=seed,
                metrics={METRIC: num + noise, "requests_completed": num, "requests_aborted": 0},
                effective={"workload": {"requests_sha256": digest}},
            )
    result = analysis.compare(tmp_path, metrics=[METRIC])
    row = of(result, "sjf")
    assert (row.mark, row.difference, row.effect) == ("unlike", None, None)
    assert row.mean.value == pytest.approx(40.05)
    assert result.warnings == [
        "scheduler=sjf and scheduler=fifo did not serve the same requests (4 of 5 seeds; 40 against 60 requests per "
        "cell), so they are not compared"
    ]


def test_lines_that_one_side_left_out_end_the_comparison(tmp_path: Path) -> None:
    """A smaller max_model_len loses the long lines of a trace: what is left is faster, and no better."""
    for max_model_len, skipped in ((4096, 0), (1024, 20)):
        effective = {"max_model_len": max_model_len, "workload": {"trace_sha256": ONE, "bad_lines_skipped": skipped}}
        five_seeds(tmp_path / str(skipped), engine__max_model_len=max_model_len, effective=effective)
    result = analysis.compare(tmp_path, metrics=[METRIC])
    assert [row.mark for row in result.rows] == ["baseline", "unlike"]
    assert "effective.workload.bad_lines_skipped (0 against 20)" in result.warnings[0]


def same_result(folder: Path, value: float, seeds: int = 5, **changes: Any) -> None:
    for seed in range(seeds):
        host = {"plan_s/mean": 1e-5 * (seed + 1), "startup_s": 0.1 * (seed + 1)}  # the host's clock is never the same
        write_cell(folder / f"s{seed}", metrics={METRIC: value, **host}, seed=seed, **changes)


@pytest.mark.parametrize("correction", ["none", "holm"])
def test_seeds_that_change_nothing_are_one_observation(tmp_path: Path, correction: Any) -> None:
    same_result(tmp_path / "a", 1.0, scheduler="fifo", workload__arrival="trace")
    same_result(tmp_path / "b", 1.1, scheduler="sjf", workload__arrival="trace")
    result = analysis.compare(tmp_path, metrics=[METRIC], correction=correction)
    assert [(row.n, row.mean.low) for row in result.rows] == [(1, None)] * 2
    slow = of(result, "sjf")
    assert (slow.num_compared, slow.p, slow.mark) == (1, None, "few seeds")
    assert slow.effect == pytest.approx(0.1)
    assert result.notes[0].startswith("The seed changes nothing here: cells that differ in it alone have equal results")
    assert "workload.arrival=poisson" in result.notes[0]
    assert not any("seed=range" in note for note in result.notes)
    figure = bars.draw(result)
    assert figure is not None
    assert not [line for panel in figure.axes for line in panel.get_lines() if line.get_linewidth() == 1.6]


def test_what_the_host_measured_differs_all_the_same(tmp_path: Path) -> None:
    same_result(tmp_path / "a", 1.0, scheduler="fifo")
    same_result(tmp_path / "b", 1.1, scheduler="sjf")
    result = analysis.compare(tmp_path, metrics=["plan_s/mean", METRIC])
    assert {(row.metric, row.n) for row in result.rows} == {("plan_s/mean", 5), (METRIC, 1)}


def test_one_policy_moved_by_the_seed_and_one_not(tmp_path: Path) -> None:
    same_result(tmp_path / "a", 1.0, scheduler="fifo", workload__seed=3)
    five_seeds(tmp_path / "b", shift=0.1, scheduler="sjf", workload__seed=3)
    result = analysis.compare(tmp_path, metrics=[METRIC])
    assert {row.group.values["scheduler"]: row.n for row in result.rows} == {"fifo": 1, "sjf": 5}
    assert result.notes[0].startswith("The seed changes nothing in scheduler=fifo")
    assert "workload.seed=null" in result.notes[0]


def test_on_a_device_repeats_of_one_list_of_requests_count_where_they_differ(tmp_path: Path) -> None:
    """Times vary with the machine; the hit rate follows from the requests, so five of it are one."""
    for scheduler, shift in (("fifo", 0.0), ("sjf", 0.1)):
        for seed, noise in enumerate(NOISE):
            write_cell(
                tmp_path / f"{scheduler}{seed}",
                scheduler=scheduler,
                seed=seed,
                metrics={METRIC: 1 + noise + shift, "prefix_cache_hit_rate": 0.5 + shift},
                effective={"workload": {"requests_sha256": ONE}},
            )
    result = analysis.compare(tmp_path, metrics=[METRIC, "prefix_cache_hit_rate"])
    found = {(row.group.values["scheduler"], row.metric): (row.n, row.mark) for row in result.rows}
    assert found["sjf", METRIC] == (5, "worse")
    assert found["sjf", "prefix_cache_hit_rate"] == (1, "few seeds")


def test_curves_have_no_band_where_the_seed_changes_nothing(tmp_path: Path) -> None:
    for rate in (1.0, 2.0, 4.0):
        same_result(tmp_path / str(rate), rate, workload__rate_per_s=rate)
    figure = curves.draw(analysis.compare(tmp_path, metrics=[METRIC]), "workload.rate_per_s", [METRIC])
    assert figure is not None
    assert not figure.axes[0].collections


def test_a_simulated_trace_under_three_seeds(tmp_path: Path) -> None:
    """The whole way: real cells of a trace with its own times, one of them under a copy of the trace."""
    discover()
    lines = [{"time_s": i / 10, "prompt_tokens": 100 + i, "output_tokens": 5} for i in range(20)]
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    for seed in range(3):
        path = tmp_path / ("b.jsonl" if seed == 2 else "a.jsonl")
        overrides = ["tracker=files", "model=tiny", "executor=simulated", "workload=trace", f"workload.path={path}"]
        cfg = compose([*overrides, f"seed={seed}"])
        config: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
        cell = CellInfo(folder=tmp_path / "cells" / str(seed), cell_id=cell_id(config), config=config)
        assert run_cell(cfg, cell) == "completed"
    result = analysis.compare(tmp_path / "cells", metrics=[METRIC])
    assert (result.by, result.warnings) == ([], [])
    assert [row.n for row in result.rows] == [1]
    assert result.notes[0].startswith("The seed changes nothing here")


def test_a_percentile_of_few_values_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for scheduler, count in (("fifo", 6), ("sjf", 100)):
        metrics = {METRIC: 1.0, "ttft_s/count": count, "ttft_s/mean": 1.0}
        write_cell(tmp_path / scheduler, scheduler=scheduler, metrics=metrics)
    result = analysis.compare(tmp_path, metrics=[METRIC, "ttft_s/mean"])
    few = {(row.group.values["scheduler"], row.metric): row.few for row in result.rows}
    assert few == {
        ("fifo", METRIC): 6,
        ("fifo", "ttft_s/mean"): None,
        ("sjf", METRIC): None,
        ("sjf", "ttft_s/mean"): None,
    }
    assert (
        "† ttft_s/p99 is that of only 6 values in some cell, hardly more than the largest one: it needs 100 or more."
        in (result.notes)
    )
    print_comparison(result)
    assert capsys.readouterr().out.count("1 †") == 1
    old = json.loads((tmp_path / "fifo" / "summary.json").read_text())
    del old["metrics"]["ttft_s/count"]  # as records had it before: the completed requests are as many
    (tmp_path / "fifo" / "summary.json").write_text(json.dumps(old))
    assert analysis.compare(tmp_path, metrics=[METRIC]).rows[0].few == 6
