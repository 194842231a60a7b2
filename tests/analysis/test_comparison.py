"""What is compared with what, and what bad records get."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from framework.records import analysis
from framework.records.analysis.comparison import Row
from tests.analysis.records import write_cell, write_sweep

METRIC = "ttft_s/p99"
NOISE = [0.3, -0.2, 0.1, 0.4, -0.35, 0.15]


def cells(folder: Path, seeds: int = 5, shift: float = 0.1, **changes: object) -> None:
    """One scheduler: METRIC is 1 + the seed's noise + a little of its own + `shift`."""
    for seed in range(seeds):
        value = 1 + NOISE[seed] + shift * (1 + 0.1 * (-1) ** seed)
        write_cell(folder / f"s{seed}", metrics={METRIC: value}, seed=seed, **changes)


def row(rows: list[Row], **values: object) -> Row:
    (found,) = [r for r in rows if all(r.group.values[key] == value for key, value in values.items())]
    return found


def test_paired_by_seed(tmp_path: Path) -> None:
    cells(tmp_path / "a", shift=0.0, scheduler="fifo")
    cells(tmp_path / "b", shift=0.1, scheduler="sjf")
    result = analysis.compare(tmp_path, baseline=["scheduler=fifo"], metrics=[METRIC])
    assert result.by == ["scheduler"]
    slow = row(result.rows, scheduler="sjf")
    frame = analysis.load(tmp_path).set_index(["scheduler", "seed"])[METRIC]
    oracle = stats.ttest_rel(frame["sjf"], frame["fifo"]).confidence_interval()
    assert slow.difference is not None
    assert (slow.difference.low, slow.difference.high) == pytest.approx((oracle.low, oracle.high))
    assert slow.difference.value == pytest.approx(0.1, abs=0.005)
    assert slow.effect == pytest.approx(slow.difference.value / frame["fifo"].mean())
    assert (slow.test, slow.n, slow.mark) == ("paired", 5, "worse")  # less TTFT is better
    assert slow.mean.low is not None
    assert slow.mean.low < 1.1 < slow.mean.high  # the seeds' noise is in the mean, and not in the difference
    assert row(result.rows, scheduler="fifo").mark == "baseline"


def test_noise_and_sameness_are_marked(tmp_path: Path) -> None:
    for name, values in {"a": NOISE[:5], "b": NOISE[1:], "c": NOISE[:5]}.items():
        for seed, value in enumerate(values):
            write_cell(tmp_path / f"{name}{seed}", metrics={METRIC: 1 + value}, seed=seed, scheduler=name)
    marks = [r.mark for r in analysis.compare(tmp_path, metrics=[METRIC]).rows]
    assert marks == ["baseline", "noise", "same"]


def test_fewer_than_five_seeds_are_reported_without_intervals(tmp_path: Path) -> None:
    cells(tmp_path / "a", seeds=4, scheduler="fifo")
    cells(tmp_path / "b", seeds=4, shift=5.0, scheduler="sjf")
    result = analysis.compare(tmp_path, baseline=["scheduler=fifo"], metrics=[METRIC])
    assert all(r.mean.low is None for r in result.rows)
    assert row(result.rows, scheduler="sjf").mark == "few seeds"
    assert any("without intervals" in note and "seed=range(5)" in note for note in result.notes)


def test_without_enough_common_seeds_welch(tmp_path: Path) -> None:
    cells(tmp_path / "a", scheduler="fifo")
    for seed in range(5):
        write_cell(tmp_path / f"b{seed}", metrics={METRIC: 2 + NOISE[seed]}, seed=seed + 3, scheduler="sjf")
    result = analysis.compare(tmp_path, baseline=["scheduler=fifo"], metrics=[METRIC])
    slow = row(result.rows, scheduler="sjf")
    frame = analysis.load(tmp_path).groupby("scheduler")[METRIC]
    oracle = stats.ttest_ind(frame.get_group("sjf"), frame.get_group("fifo"), equal_var=False)
    assert slow.difference is not None
    assert (slow.test, slow.difference.p) == ("welch", pytest.approx(oracle.pvalue))
    assert any("Welch" in note for note in result.notes)


def test_a_missing_seed_leaves_the_other_pairs(tmp_path: Path) -> None:
    cells(tmp_path / "a", seeds=6, shift=0.0, scheduler="fifo")
    cells(tmp_path / "b", seeds=5, scheduler="sjf")
    result = analysis.compare(tmp_path, baseline=["scheduler=sjf"], metrics=[METRIC])
    fast = row(result.rows, scheduler="fifo")
    assert (fast.test, fast.n, fast.num_compared) == ("paired", 6, 5)
    assert any("without a partner" in note for note in result.notes)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"workload__num_requests": 7}, "workload.num_requests"),
        ({"model__name": "big"}, "model"),
        ({"effective": {"device": "cuda:0"}}, "effective.device"),
        ({"environment": {"cpu": "another CPU"}}, "environment.cpu"),
    ],
)
def test_other_workloads_models_and_devices_are_not_paired(tmp_path: Path, change: dict, key: str) -> None:
    cells(tmp_path / "a", scheduler="fifo")
    cells(tmp_path / "b", scheduler="sjf", **change)
    for by in (["scheduler"], []):
        result = analysis.compare(tmp_path, baseline=["scheduler=fifo"], by=by, metrics=[METRIC])
        assert row(result.rows, scheduler="sjf").test == "welch"
        (warning,) = result.warnings
        assert "no test between them is paired" in warning
        assert f"{key} (" in warning


def test_one_policy_under_two_workloads(tmp_path: Path) -> None:
    cells(tmp_path / "a")
    cells(tmp_path / "b", workload__num_requests=7, workload__rate_per_s=2)
    result = analysis.compare(tmp_path, metrics=[METRIC])
    assert [r.test for r in result.rows] == ["", "welch"]
    assert "workload.num_requests (7 against 6)" in result.warnings[0]


def test_another_code_and_other_packages_are_warned_of(tmp_path: Path) -> None:
    cells(tmp_path / "a", scheduler="fifo", environment={"packages": {"torch": "2.1"}})
    cells(tmp_path / "b", scheduler="sjf", environment={"packages": {"torch": "2.2"}, "git_revision": "b" * 40})
    assert analysis.compare(tmp_path, metrics=[METRIC]).warnings == [
        "records of 2 code revisions are compared: aaaaaaaaa, bbbbbbbbb",
        "records of different versions of torch are compared: 2.1, 2.2",
    ]


def test_cells_that_rejected_requests_are_warned_of(tmp_path: Path) -> None:
    cells(tmp_path / "a", scheduler="fifo")
    write_cell(tmp_path / "b", metrics={METRIC: 1.0, "requests_rejected": 3}, scheduler="sjf")
    (warning,) = analysis.compare(tmp_path, metrics=[METRIC]).warnings
    assert warning.startswith("1 of 6 cells rejected requests")


def test_cells_of_two_devices_do_not_make_one_group_unseen(tmp_path: Path) -> None:
    for name in ("H100", "H200"):
        effective = {"device": "cuda:0"}
        cells(tmp_path / name, effective=effective, environment={"device_name": name})
    result = analysis.compare(tmp_path, metrics=[METRIC])
    assert result.by == ["environment.device_name"]
    assert "environment.device_name (H200 against H100)" in result.warnings[0]
    result = analysis.compare(tmp_path, metrics=[METRIC], by=["scheduler"])
    assert "environment.device_name (H100, H200 within scheduler=prefill_first)" in result.warnings[0]


def test_the_workload_stays_when_the_scheduler_changes(tmp_path: Path) -> None:
    """A sweep over loads: each scheduler is compared with the baseline under its own load."""
    for load in (1.0, 2.0):
        for shift, scheduler in ((0.0, "fifo"), (0.1, "sjf")):
            folder = tmp_path / f"{scheduler}{load:g}"
            cells(folder, shift=shift * load, scheduler=scheduler, workload__rate_per_s=load)
    result = analysis.compare(tmp_path, metrics=[METRIC])
    assert result.baseline == {"scheduler": "fifo"}
    assert result.warnings == [
        "workload, model or device differ, and only equal ones are compared: workload.rate_per_s (1, 2)"
    ]
    for load in (1.0, 2.0):
        one = row(result.rows, **{"scheduler": "sjf", "workload.rate_per_s": load})
        assert one.baseline is not None
        assert one.baseline.values["workload.rate_per_s"] == load
        assert one.difference is not None
        assert (one.test, one.difference.value) == ("paired", pytest.approx(0.1 * load, abs=0.01))


def test_parameters_of_one_plugin_count_and_those_of_two_do_not(tmp_path: Path) -> None:
    write_cell(tmp_path / "0", scheduler={"name": "fifo", "size": 1})
    write_cell(tmp_path / "1", scheduler={"name": "sjf", "limit": 1})
    assert analysis.compare(tmp_path).by == ["scheduler"]
    write_cell(tmp_path / "2", scheduler={"name": "sjf", "limit": 2}, tracker="wandb")
    assert analysis.compare(tmp_path).by == ["scheduler", "scheduler.limit"]


def test_the_arms_of_a_study_stand_for_what_they_set(tmp_path: Path) -> None:
    for arm, blocks, scheduler in (("all", 100, "fifo"), ("small", 50, "fifo"), ("small_sjf", 50, "sjf")):
        cells(tmp_path / arm, engine__num_blocks=blocks, scheduler=scheduler, study__arm=arm, study__question="?")
    result = analysis.compare(tmp_path, metrics=[METRIC], baseline=["study.arm=all"])
    assert result.by == ["study.arm"]
    assert [r.test for r in result.rows] == ["", "paired", "paired"]
    assert not result.warnings


def test_what_else_differs_between_groups_is_named(tmp_path: Path) -> None:
    cells(tmp_path / "a", scheduler="fifo")
    cells(tmp_path / "b", scheduler="sjf", engine__num_blocks=50)
    result = analysis.compare(tmp_path, metrics=[METRIC], by=["scheduler"])
    assert result.rows[1].test == "paired"
    assert result.warnings == ["what is compared differs in engine.num_blocks too: the effects are of all of them"]


def test_cells_of_one_seed_count_once(tmp_path: Path) -> None:
    for eviction in ("lru", "fifo"):
        cells(tmp_path / f"a{eviction}", shift=0.0, scheduler="fifo", eviction=eviction)
        cells(tmp_path / f"b{eviction}", scheduler="sjf", eviction=eviction)
    result = analysis.compare(tmp_path, by=["scheduler"], metrics=[METRIC])
    assert {r.n for r in result.rows} == {5}
    assert any("eviction" in note for note in result.notes)


def test_cells_that_did_not_complete_and_damage_are_named(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    write_cell(tmp_path / "failed", status="failed", reason="boom", scheduler="sjf")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "steps.parquet").write_bytes(b"")
    (tmp_path / "0" / "summary.json").write_text('{"status": "comp')
    (tmp_path / "1" / "requests.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "2" / "steps.parquet").unlink()
    summary = json.loads((tmp_path / "3" / "summary.json").read_text())
    (tmp_path / "3" / "summary.json").write_text(json.dumps({**summary, "metrics": {}}))
    result = analysis.compare(tmp_path)
    assert [cell.reason for cell in result.not_completed] == ["boom"]
    why = {one.folder.name: one.why for one in result.damaged}
    assert sorted(why) == ["0", "1", "2", "3", "half"]
    assert "never finished" in why["half"]
    assert "summary.json cannot be read" in why["0"]
    assert "requests.parquet is damaged" in why["1"]
    assert why["2"] == "steps.parquet is missing"
    assert "without metrics" in why["3"]
    assert len(result.cells) == 6


def test_undefined_metrics_do_not_count(tmp_path: Path) -> None:
    cells(tmp_path / "a", seeds=6)
    summary = json.loads((tmp_path / "a" / "s5" / "summary.json").read_text())
    for undefined in (None, "nan"):
        summary["metrics"][METRIC] = undefined
        (tmp_path / "a" / "s5" / "summary.json").write_text(json.dumps(summary))
        result = analysis.compare(tmp_path, metrics=[METRIC])
        assert result.rows[0].n == 5
        assert f"{METRIC} is undefined in 1 of 6 cells, which do not count." in result.notes


def test_holm_takes_marks_away(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for i, shift in enumerate((0.0, 0.28, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)):
        for seed in range(6):
            value = 5 + shift + rng.normal(0, 0.12)
            write_cell(tmp_path / f"{i}-{seed}", metrics={METRIC: value}, seed=seed, scheduler=f"s{i}")
    marks = {}
    for correction in ("none", "holm"):
        result = analysis.compare(tmp_path, metrics=[METRIC], correction=correction)
        marks[correction] = row(result.rows, scheduler="s1")
        assert any(("Holm" if correction == "holm" else "not corrected") in note for note in result.notes)
    assert marks["none"].mark == "worse"
    assert marks["none"].p is not None
    assert marks["holm"].p == pytest.approx(7 * marks["none"].p)


def test_bad_questions(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep")
    folder = [str(tmp_path / "sweep")]
    with pytest.raises(ValueError, match=r"no record has the metric 'ttft_s/p9'; known: ttft_s/p9"):
        analysis.compare(folder, metrics=["ttft_s/p9"])
    with pytest.raises(ValueError, match=r"no record has the key 'schedulr'; .* scheduler"):
        analysis.compare(folder, by=["schedulr"])
    with pytest.raises(ValueError, match="scheduler is one of chunked_prefill, prefill_first"):
        analysis.compare(folder, baseline=["scheduler=sjf"])
    with pytest.raises(ValueError, match="eviction is not compared; compared are scheduler"):
        analysis.compare(folder, baseline=["eviction=lru"])
    with pytest.raises(ValueError, match="must be KEY=VALUE"):
        analysis.compare(folder, baseline=["fifo"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no readable record below"):
        analysis.compare([str(tmp_path / "empty")])
    with pytest.raises(ValueError, match="is not a folder"):
        analysis.compare([str(tmp_path / "nowhere")])
    write_cell(tmp_path / "failed", status="failed", reason="boom")
    with pytest.raises(ValueError, match="none of the 1 records is completed"):
        analysis.compare([str(tmp_path / "failed")])
    (tmp_path / "failed" / "half").mkdir()
    (tmp_path / "failed" / "half" / "summary.json").write_text('{"status": "comp')
    with pytest.raises(ValueError, match=r"\(1 more are damaged\)(?s:.*)half: damaged: summary.json cannot be"):
        analysis.compare([str(tmp_path / "failed")])


def test_load_is_a_row_a_cell(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    write_cell(tmp_path / "failed", status="failed", reason="boom")
    (tmp_path / "half" / ".hydra").mkdir(parents=True)
    frame = analysis.load(tmp_path)
    assert len(frame) == 11
    assert frame["folder"].map(lambda path: path.name).tolist() == [*map(str, range(10)), "failed"]
    assert frame.set_index("status").loc["failed", "reason"] == "boom"
    assert set(frame["scheduler"]) == {"prefill_first", "chunked_prefill"}
    assert frame[frame.status == "completed"][METRIC].notna().all()
    assert "half" in frame.attrs["damaged"][0]
    assert len(analysis.load([tmp_path, tmp_path / "0"])) == 11  # each record once
