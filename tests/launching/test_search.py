"""A search finds what is better by the metric's name, and keeps the trials of one question together."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from framework.app.launching.search.objective import check_measured, find_directions
from framework.app.launching.search.study import distribution, open_study
from framework.records.analysis.metric_names import direction
from framework.records.metrics.summary import summarize
from tests.launching.conftest import Run, cells, summary

optuna = pytest.importorskip("optuna", minversion="5.0", reason="needs optuna: pip install '.[sweep]'")

SEARCH = ("hydra/sweeper=search", "model.name=fine", "hydra.sweeper.n_trials=5")
STORED = ("hydra.sweeper.storage=sqlite:///trials.db", "hydra.sweeper.study_name=mine")
BOTH = ("output_tokens_per_s", "ttft_s/p99")


def best(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "search.json").read_text())["best"]


def test_the_best_is_what_is_better_by_the_metrics_name(sweep: Run, tmp_path: Path) -> None:
    done = sweep(*SEARCH, "objective=[ttft_s/p99]", "seed=range(9)", "hydra.sweeper.n_jobs=2")
    assert done.returncode == 0, done.stderr
    measured = [summary(path.parent)["metrics"]["ttft_s/p99"] for path in (tmp_path / "s").glob("*/summary.json")]
    assert len(measured) == 5
    assert len(set(measured)) > 1
    (found,) = best(tmp_path / "s")
    assert found["metrics"] == {"ttft_s/p99": min(measured)}
    assert f"ttft_s/p99={min(measured):.6g}   seed=" in done.stdout
    assert "alembic" not in done.stdout + done.stderr


def test_a_trade_off_knows_both_directions_in_any_order(sweep: Run, tmp_path: Path) -> None:
    # In fake_sweep.py the highest seed is the best in both.
    done = sweep("hydra/sweeper=pareto", *SEARCH[1:], "objective=[ttft_s/p99,output_tokens_per_s]", "seed=range(9)")
    assert done.returncode == 0, done.stderr
    seeds = [summary(path.parent)["requested"]["seed"] for path in (tmp_path / "s").glob("*/summary.json")]
    assert {one["parameters"]["seed"] for one in best(tmp_path / "s")} == {max(seeds)}


def test_a_direction_for_every_metric() -> None:
    for name in summarize([], []):
        if direction(name):
            assert find_directions([name], None) == {name: "maximize" if direction(name) > 0 else "minimize"}
        else:
            with pytest.raises(ValueError, match=rf"neither more nor less {name} is better in itself"):
                find_directions([name], None)
            assert find_directions([name], "minimize") == {name: "minimize"}
    assert find_directions([*BOTH, "output_tokens"], [None, None, "maximize"]).keys() == {*BOTH, "output_tokens"}
    assert find_directions(["client/a b/ttft_s/p99"], None) == {"client/a b/ttft_s/p99": "minimize"}
    for names, given, message in (
        ([], None, r"objective=\[\]: a search needs a metric"),
        (["ttft/p99"], None, "did you mean ttft_s/p99"),
        ([BOTH[0]] * 2, None, "names output_tokens_per_s twice"),
        (BOTH, ["maximize"], "must be maximize or minimize for each of"),
        (BOTH[:1], "up", "hydra.sweeper.direction=up: must be maximize or minimize"),
    ):
        with pytest.raises(ValueError, match=message):
            find_directions(list(names), given)


def test_the_worst_is_looked_for_only_aloud(capsys: pytest.CaptureFixture[str]) -> None:
    assert find_directions(["ttft_s/mean"], "maximize") == {"ttft_s/mean": "maximize"}
    assert "looks for the worst ttft_s/mean" in capsys.readouterr().err


def test_goodput_needs_a_limit(tmp_path: Path) -> None:
    config = {"slo": {"ttft_s": None, "tpot_s": None}, "workload": {"name": "synthetic"}}
    names = ["client/a/goodput_requests_per_s"]
    with pytest.raises(ValueError, match=r"slo\.ttft_s, slo\.tpot_s and slo\.e2e_s are null, so that no request"):
        check_measured(names, config)
    check_measured(names, {**config, "slo": {"ttft_s": 0.5}})
    check_measured(["ttft_s/p99"], config)
    trace = {**config, "workload": {"name": "trace", "path": str(tmp_path / "t.jsonl")}}
    (tmp_path / "t.jsonl").write_text('{"time_s": 0, "ttft_slo_s": 1}\n')
    check_measured(names, trace)
    (tmp_path / "t.jsonl").write_text('{"time_s": 0}\n')
    with pytest.raises(ValueError, match=r"no request of .*t\.jsonl has ttft_slo_s"):
        check_measured(names, trace)


def test_goodput_without_a_limit_runs_no_cell(sweep: Run, tmp_path: Path) -> None:
    done = sweep(*SEARCH, "objective=[goodput_requests_per_s]", "seed=range(9)")
    assert done.returncode == 2
    assert "set one, such as slo.ttft_s=0.5" in done.stderr
    assert not (tmp_path / "s").exists()


def trials(folder: Path) -> list[tuple[str, float | None]]:
    with sqlite3.connect(folder / "trials.db") as database:
        return database.execute("SELECT state, value FROM trials LEFT JOIN trial_values USING (trial_id)").fetchall()


def test_a_stored_search_goes_on_and_takes_no_other(sweep: Run, tmp_path: Path) -> None:
    asked = (*SEARCH[:2], *STORED, "seed=range(9)", "hydra.sweeper.n_trials=2")
    for number in (1, 2):
        done = sweep(*asked, "objective=[output_tokens_per_s]", f"hydra.sweep.dir=s{number}")
        assert done.returncode == 0, done.stderr
        assert [state for state, _ in trials(tmp_path)] == ["COMPLETE"] * 2 * number
    before = trials(tmp_path)
    done = sweep(*asked, "objective=[ttft_s/mean]", "workload=synthetic", "hydra.sweep.dir=other")
    assert done.returncode == 2
    assert "fixed.workload.name was chat, is synthetic" in done.stderr
    assert trials(tmp_path) == before, "and none is left running"
    assert not (tmp_path / "other").exists()


ASKED = {"objective": {"ttft_s/p99": "minimize"}, "axes": {"seed": "seed=0,1"}, "fixed": {"model": {"name": "tiny"}}}
SAMPLER = OmegaConf.create({"name": "tpe", "seed": 0, "population_size": None})


@pytest.mark.parametrize(
    ("part", "other", "changed"),
    [
        ("objective", {"ttft_s/p99": "maximize"}, "objective.ttft_s/p99 was minimize, is maximize"),
        (
            "objective",
            {"itl_s/p99": "minimize"},
            "objective.itl_s/p99 was not there, is minimize; objective.ttft_s/p99 was",
        ),
        ("axes", {"seed": "seed=0,1,2"}, "axes.seed was seed=0,1, is seed=0,1,2"),
        ("fixed", {"model": {"name": "large"}}, "fixed.model.name was tiny, is large"),
        ("inputs", {"workload": "e3b0"}, "inputs.workload was not there, is e3b0"),
    ],
)
def test_a_stored_study_asks_one_question(tmp_path: Path, part: str, other: dict[str, Any], changed: str) -> None:
    url = f"sqlite:///{tmp_path}/trials.db"
    study = open_study(ASKED, SAMPLER, url, "mine")
    study.tell(study.ask(), 1.0)
    assert len(open_study(ASKED, SAMPLER, url, "mine").trials) == 1
    with pytest.raises(ValueError, match=re.escape(changed)):
        open_study({**ASKED, part: other}, SAMPLER, url, "mine")
    assert open_study({**ASKED, part: other}, SAMPLER, url, "another").trials == []


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"storage=sqlite:///no/where\.db cannot be opened: .*name a file"):
        open_study(ASKED, SAMPLER, "sqlite:///no/where.db", None)
    with pytest.raises(ValueError, match="kept under a name only with hydra"):
        open_study(ASKED, SAMPLER, None, "mine")
    optuna.create_study(storage=f"sqlite:///{tmp_path}/o.db", study_name="old").ask()
    with pytest.raises(ValueError, match="has trials that do not say what they asked"):
        open_study(ASKED, SAMPLER, f"sqlite:///{tmp_path}/o.db", "old")
    for key, value in (("name", "grid"), ("population_size", 3)):
        with pytest.raises(ValueError, match=rf"hydra\.sweeper\.sampler\.{key}={value}"):
            open_study(ASKED, OmegaConf.merge(SAMPLER, {key: value}), None, None)


def test_failed_trials_are_closed(sweep: Run, tmp_path: Path) -> None:
    axes = ("scheduler=chunked_prefill,mlfq", "scheduler.num_levels=3,4", "hydra.sweeper.sampler.name=random")
    chosen = ("hydra/sweeper=search", "model.name=fine,failing", "hydra.sweeper.n_trials=16", "hydra.sweeper.n_jobs=8")
    done = sweep(*chosen, "objective=[output_tokens_per_s]", *STORED, *axes)
    assert done.returncode == 1
    listed = cells(tmp_path / "s")
    assert {cell["status"] for cell in listed} == {"completed", "failed", "skipped"}
    num_completed = sum(cell["status"] == "completed" for cell in listed)
    expected = ["COMPLETE"] * num_completed + ["FAIL"] * (16 - num_completed)
    assert sorted(state for state, _ in trials(tmp_path)) == expected


def test_a_search_that_found_nothing_says_so(sweep: Run) -> None:
    done = sweep(
        "hydra/sweeper=search", "model.name=fine", "objective=[fairness_index]", "seed=0,1", "hydra.sweeper.n_trials=1"
    )
    assert done.returncode == 1
    assert "no trial of 1 has a value to maximize fairness_index; the last one: objective=[fairness" in done.stderr


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ("seed=range(0,9)", {"low": 0, "high": 8, "step": 1, "log": False}),
        ("seed=range(9,0,-2)", {"low": 1, "high": 9, "step": 2, "log": False}),
        ("engine.share=range(0.1,0.5,0.1)", {"low": 0.1, "high": 0.4, "step": 0.1, "log": False}),
        ("seed=int(tag(log,interval(8,256)))", {"low": 8, "high": 256, "step": 1, "log": True}),
        ("scheduler=fair,'a b'", {"choices": ("fair", "'a b'")}),
        ("x=choice([1,2],{a:1})", {"choices": ("[1,2]", "{a:1}")}),
        ("x=shuffle(range(1,3))", {"choices": ("1", "2")}),
        ("x=5", None),
        ("x=choice(5)", None),
    ],
)
def test_the_distribution_of_an_axis(axis: str, expected: dict[str, Any] | None) -> None:
    found = distribution(OverridesParser.create().parse_override(axis))
    assert (found and json.loads(json.dumps(found._asdict()))) == (expected and json.loads(json.dumps(expected)))
