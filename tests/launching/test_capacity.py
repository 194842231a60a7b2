"""`hydra/sweeper=capacity`: the highest load at which enough requests meet their objectives."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console
from scipy import optimize, stats

from framework.app.cli import run as cli
from framework.app.experiment import hydra_cell
from framework.app.launching.capacity.bracket import Outcome, Search, answer, next_load, wilson
from framework.app.launching.capacity.result import CellSearch, print_result
from framework.app.launching.capacity.sweeper import CapacitySweeper
from framework.app.launching.resume_key import resume_key
from framework.app.launching.settings import CapacitySettings
from framework.app.launching.sweep_file import read_sweep
from framework.records.record import Record, RecordWriter
from framework.registry.discovery import discover

SEARCH = Search(goal=0.9, tolerance=0.05, start=1.0, lowest=0.01, highest=10_000.0, is_whole=False)


def search_all(search: Search, share: Callable[[float], float], total: int = 10**6) -> dict[float, Outcome]:
    outcomes: dict[float, Outcome] = {}
    while (load := next_load(search, outcomes)) is not None:
        assert load not in outcomes
        outcomes[load] = Outcome((round(share(load) * total),), (total,))
    return outcomes


@settings(max_examples=25, deadline=None)
@given(
    mu=st.floats(0.2, 4000), limit=st.floats(1, 50), goal=st.sampled_from([0.5, 0.9, 0.99]), tol=st.floats(0.002, 0.5)
)
def test_the_capacity_of_a_queue_that_has_a_formula(mu: float, limit: float, goal: float, tol: float) -> None:
    """An M/M/1 queue: a request waits at most t with probability 1 - rho exp(-(mu - lambda) t)."""

    def share(rate: float) -> float:
        return max(0.0, 1 - rate / mu * math.exp(-(mu - rate) * limit / mu)) if rate < mu else 0.0

    exact = optimize.brentq(lambda rate: share(rate) - goal, 0, mu)
    search = Search(goal=goal, tolerance=tol, start=1.0, lowest=1e-3, highest=1e5, is_whole=False)
    found = answer(search, search_all(search, share))
    assert found.capacity is not None
    assert found.missed_at is not None
    assert found.capacity * 0.999 <= exact <= found.missed_at * 1.001
    assert found.missed_at - found.capacity <= tol * found.capacity


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(1, 4000))
def test_a_closed_load_is_a_whole_number_and_its_limit_exact(limit: int) -> None:
    search = Search(goal=0.9, tolerance=0.001, start=1, lowest=1, highest=5000, is_whole=True)
    outcomes = search_all(search, lambda load: 1.0 if load <= limit else 0.0)
    assert all(load == int(load) for load in outcomes)
    found = answer(search, outcomes)
    assert found.missed_at is not None
    assert found.capacity is not None
    assert found.capacity <= limit < found.missed_at <= found.capacity + max(1, found.capacity / 1000)


def test_a_search_ends_where_there_is_nothing_to_find() -> None:
    assert max(search_all(SEARCH, lambda _: 1.0)) == SEARCH.highest
    assert min(search_all(SEARCH, lambda _: 0.0)) == SEARCH.lowest
    assert answer(SEARCH, search_all(SEARCH, lambda _: 1.0)).missed_at is None
    assert answer(SEARCH, search_all(SEARCH, lambda _: 0.0)).capacity is None
    assert next_load(SEARCH, {1.0: Outcome((9,), (9,), kept_up=0.1)}) is None


def test_noise_is_told_from_tolerance() -> None:
    assert wilson(83, 100) == pytest.approx(tuple(stats.binomtest(83, 100).proportion_ci(method="wilson")))
    many, few = search_all(SEARCH, lambda x: 1 - x / 200, 10**6), search_all(SEARCH, lambda x: 1 - x / 200, 400)
    sure, unsure = answer(SEARCH, many), answer(SEARCH, few)
    assert (sure.is_noisy, unsure.is_noisy) == (False, True)
    assert (sure.certain_below, sure.certain_above) == (sure.capacity, sure.missed_at)
    assert unsure.certain_below is not None
    assert unsure.certain_above is not None
    assert unsure.certain_below < unsure.capacity < unsure.certain_above  # type: ignore[operator]
    assert answer(SEARCH, search_all(SEARCH, lambda x: 1 - x / 200, 20)).certain_above is None, "none was tried"
    assert not Outcome((1000, 880), (1000, 1000)).is_certain(0.9), "the seeds disagree, whatever the interval says"
    assert Outcome((10, 10), (10, 10)).is_certain(1.0)


@pytest.mark.parametrize(
    ("shares", "capacity", "printed", "following"),
    [
        ({}, None, "open", 1),
        ({1: 1.0, 2: 1.0}, 2, "at least 2", 4),
        ({1: 0.5}, None, "open", 0.5),
        ({1: 1.0, 2: 0.5}, 1, "at least 1", 1.414),
    ],
)
def test_a_search_that_was_cut_short_says_so(
    shares: dict[float, float], capacity: float | None, printed: str, following: float
) -> None:
    cell = CellSearch(overrides=["scheduler=fair"])
    for load, share in shares.items():
        cell.outcomes[load], cell.folders[load] = Outcome((round(100 * share),), (100,)), []
    row = cell.row(SEARCH)
    assert (row["capacity"], row["next_load"], row["is_noisy"]) == (capacity, following, False)
    assert row["note"].startswith(f"the search was cut short before it tried {following:g}, ")
    assert "resume=DIR" in row["note"]
    console = Console(file=io.StringIO(), width=100)
    print_result("workload.rate_per_s", SEARCH, [cell], console)
    assert f"{printed} [1]" in console.file.getvalue()  # type: ignore[attr-defined]
    cell.problem = "it broke"
    assert (cell.row(SEARCH)["next_load"], cell.row(SEARCH)["note"]) == (None, "it broke")


Sweep = Callable[..., int]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    """A sweep in this process whose cells cost nothing: a share of 1 up to the limit in `model.name`, then 0.5."""

    def run_cell(cfg: Any) -> str:
        cell = hydra_cell(cfg)
        (tmp_path / "runs").open("a").write(f"{cell.folder.name}\n")
        limit, load = float(cfg.model.name), cfg.workload.max_concurrency or cfg.workload.rate_per_s
        record = Record(status="completed", cell_id=cell.cell_id, requested=cell.config)
        record.resume_key = resume_key(cell.config)
        share = 1.0 if load <= limit else 0.5
        record.metrics = {"slo_attainment": share, "requests_completed": 1000, "requests_per_s": 0.8 * load}
        record.metrics |= dict.fromkeys(("requests_rejected", "requests_failed", "requests_aborted"), 0)
        if limit < 0:
            record.status, record.reason = "failed", "it broke"
        RecordWriter(cell.folder).write(record)
        return record.status

    def run(*overrides: str) -> int:
        GlobalHydra.instance().clear()
        where = [] if any(text.startswith("resume=") for text in overrides) else [f"hydra.sweep.dir={tmp_path / 's'}"]
        return cli.main(["-m", *where, *overrides])

    monkeypatch.setattr(cli, "run_cell", run_cell)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    yield run
    GlobalHydra.instance().clear()


OF_SWEEP = (
    *("hydra/sweeper=capacity", "hydra/launcher=in_process", "executor=simulated", "workload=synthetic"),
    *("workload.arrival=poisson", "slo.ttft_s=1", "model=tiny", "tracker=files"),
)


def result(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "s" / "capacity.json").read_text())["cells"]


def test_each_cell_gets_its_capacity_and_every_run_a_record(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "hydra.sweeper.repeats=2",
        "hydra.sweeper.tolerance=0.5",
        "hydra.sweeper.start=4",
        "hydra.sweeper.highest=6",
    )
    assert sweep(*OF_SWEEP, *options, "model.name='5'") == 0
    (first,) = result(tmp_path)
    assert (first["capacity"], first["missed_at"]) == (4, 6)
    assert [probe["attainment"] for probe in first["probes"]] == [[1, 1], [0.5, 0.5]]
    ran = (tmp_path / "runs").read_text().split()
    assert len(ran) == len(set(ran)) == 4
    assert sorted(ran) == sorted(folder for probe in first["probes"] for folder in probe["folders"])
    assert ": 4 requests/s: 100.0% meets the goal" in capsys.readouterr().out

    assert first["note"].startswith("the run is too short: requests were served at 80% of the rate at which they came")
    before = (tmp_path / "s" / "capacity.json").read_text()
    lost = first["probes"][0]["folders"][1]  # an early one, from which the rest of the search follows
    (tmp_path / "s" / lost / "summary.json").unlink()
    assert sweep(f"resume={tmp_path / 's'}") == 0
    assert (tmp_path / "runs").read_text().split() == [*ran, lost], "only what is missing runs"
    assert (tmp_path / "s" / "capacity.json").read_text() == before
    again = read_sweep(tmp_path / "s")
    assert again is not None
    assert sorted(cell.folder for cell in again.cells) == sorted(ran)


def test_a_closed_load_and_cells_without_a_capacity(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("hydra.sweeper.lowest=8", "hydra.sweeper.start=8", "hydra.sweeper.highest=11")
    closed = ("hydra.sweeper.load=workload.max_concurrency", "hydra.sweeper.repeats=1", "hydra.sweeper.tolerance=0.5")
    assert sweep(*OF_SWEEP, *closed, *limits, "model.name='0.5','9','999',-1") == 1
    none, found, always, failed = result(tmp_path)
    assert (found["capacity"], found["missed_at"]) == (8, 11)
    assert none["capacity"] is None
    assert "missed at every load down to 8" in none["note"]
    assert "met at every load up to hydra.sweeper.highest=11; raise it" in always["note"]
    assert failed["note"].startswith("the run at 8 requests at once in ")
    assert failed["note"].endswith("failed: it broke")
    assert "at least 11" in capsys.readouterr().out


def test_each_cell_states_its_own_objectives(sweep: Sweep, tmp_path: Path) -> None:
    options = ("hydra.sweeper.repeats=1", *(f"hydra.sweeper.{name}=6" for name in ("lowest", "start", "highest")))
    rest = [text for text in OF_SWEEP if not text.startswith("slo.")]
    assert sweep(*rest, *options, "slo.ttft_s=1,2", "model.name='9'") == 0
    assert [cell["slo"] for cell in result(tmp_path)] == [
        {"ttft_s": limit, "tpot_s": None, "e2e_s": None} for limit in (1, 2)
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["workload.rate_per_s=3"], "chooses workload.rate_per_s itself; leave it out"),
        (["seed=0,1"], "each load is run with 3 seeds already"),
        (["hydra.sweeper.tolerance=0"], "hydra.sweeper.tolerance=0.0 must be in [0.001, 1)"),
    ],
)
def test_a_search_without_a_meaning_is_refused(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    assert sweep(*OF_SWEEP, *overrides) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": -1.0}, "tolerance=-1.0 must be in"),
        ({"goal": 90.0}, "goal=90.0 must be above 0 and at most 1"),
        ({"repeats": 0}, "repeats=0 must be at least 1"),
        ({"lowest": 0.0}, "lowest=0.0 must be above 0"),
        ({"start": 0.001}, r"start=0.001 must be in \[lowest, highest\]"),
        ({"load": "seed"}, "load=seed must be workload.rate_per_s or workload.max_concurrency"),
    ],
)
def test_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"hydra.sweeper.{message}"):
        sweeper(**options)


@pytest.mark.parametrize(
    ("load", "start", "highest", "wanted"),
    [
        ("workload.rate_per_s", 0.123456789, 98765.4321, (0.1235, 98770.0)),
        ("workload.rate_per_s", 1.23456789e-5, 1.0, (1.235e-5, 1.0)),
        ("workload.max_concurrency", 1234567, 7654321.4, (1234567, 7654321)),
        ("workload.max_concurrency", 0.3, 0.4, (1, 1)),
    ],
)
def test_a_cell_is_told_the_very_load_of_the_search(
    load: str, start: float, highest: float, wanted: tuple[float, float]
) -> None:
    searching = sweeper(load=load, lowest=start, start=start, highest=highest, repeats=1)
    search = searching.search
    assert (search.lowest, search.start, search.highest) == (wanted[0], *wanted)
    cell = CellSearch(overrides=[])
    for tried in (search.start, search.highest):
        searching._composed[id(cell)] = OmegaConf.create(
            {"seed": 0, "workload": {"rate_per_s": 1.0, "max_concurrency": None}}
        )
        ((overrides, config),) = searching._runs(cell, tried)
        (told,) = OverridesParser.create().parse_overrides(overrides)
        value = config["workload"][load.rpartition(".")[2]]
        assert told.value() == value == tried
        assert type(told.value()) is type(value)


@pytest.mark.parametrize(
    ("workload", "slo", "message"),
    [
        ({"name": "chat"}, 1, "raises workload.rate_per_s, and workload=chat has no such key"),
        ({"name": "sessions", "rate_per_s": 1.0}, 1, "workload=sessions takes it as sessions per second"),
        ({"arrival": "all"}, 1, "workload.arrival=all sends every request at once"),
        ({}, None, "needs an objective: slo.ttft_s=null"),
        ({"seed": 3}, 1, "workload.seed=3 gives the same requests for every seed"),
        ({"arrival": "trace"}, 1, "workload.arrival=trace gives the same requests"),
    ],
)
def test_cells_in_which_a_search_has_no_meaning(workload: dict[str, Any], slo: float | None, message: str) -> None:
    discover()
    base = {"name": "synthetic", "arrival": "poisson", "rate_per_s": 1.0, "seed": None}
    config: dict[str, Any] = {"slo": dict.fromkeys(("ttft_s", "tpot_s", "e2e_s")), "executor": {"name": "simulated"}}
    config["workload"] = workload if "name" in workload else base | workload
    config["slo"]["ttft_s"] = slo
    with pytest.raises(ValueError, match=message):
        sweeper()._check(config)
    sweeper()._check(config | {"workload": base, "slo": {"ttft_s": 1}})


def sweeper(**options: Any) -> CapacitySweeper:
    values: dict[str, Any] = dataclasses.asdict(CapacitySettings())
    del values["_target_"]
    return CapacitySweeper(**values | options)
