"""What the command line says is what the cells get: interpolations, quotation marks, mappings, and every axis."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from framework.app.launching.arguments import expand
from framework.app.launching.axes import read_axes, values
from tests.launching.conftest import Run, cells, summary

PLUGIN = '''
from framework.interfaces import Scheduler
from framework.registry import SCHEDULERS

@SCHEDULERS.register("weighted")
class Weighted(Scheduler):
    """Weights."""
    def __init__(self, *, weights: dict[str, float] = {"z": 1.0}, more: dict[str, int] | None = None,
                 text: str = "", number: int = 0) -> None:
        pass
    def schedule(self, queue, plan) -> None:
        pass
'''
BASE = ("plugins=[mine.py]", "scheduler=weighted")


def test_an_interpolation_is_resolved_in_each_cell(sweep: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    own = ("scheduler.number='${seed}'", "executor.tp='${seed}'", "executor.device=cpu")
    study = "+hydra.sweeper.params={scheduler.text:'${model.name}'}"
    done = sweep(*BASE, *own, study, "seed=1,2", "model.name=fine,loud", "hydra.launcher.max_parallel=2")
    assert done.returncode == 0, done.stderr
    for cell in "0123":
        requested = summary(tmp_path / "s" / cell)["requested"]
        assert requested["scheduler"]["number"] == requested["executor"]["tp"] == requested["seed"]
        assert requested["scheduler"]["text"] == requested["model"]["name"]


def test_texts_with_marks_and_mappings_arrive(sweep: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    own = ("scheduler.weights={a:1.5,b:2}", "scheduler.more={c:1},{d:2}", r"scheduler.text=choice('it\'s','x\\','1')")
    done = sweep("model.name=fine", *BASE, *own, r"hydra.sweep.dir='it\'s a \\'")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "it's a \\"
    schedulers = [summary(folder / cell["folder"])["requested"]["scheduler"] for cell in cells(folder)]
    assert [one["weights"] for one in schedulers] == [{"z": 1.0, "a": 1.5, "b": 2.0}] * 6
    assert [one["more"] for one in schedulers] == [{"c": 1}] * 3 + [{"d": 2}] * 3
    assert [one["text"] for one in schedulers] == ["it's", "x\\", "1"] * 2
    done = sweep(f"resume={folder}")
    assert "6 cells: 6 completed (6 of them earlier)" in done.stdout, done.stderr


@pytest.mark.parametrize("again", ["seed=5", "++seed=5", "seed=2,3"])
def test_an_axis_that_is_given_twice_is_refused(again: str) -> None:
    config = OmegaConf.create({"hydra": {"sweeper": {"params": {"seed": "range(9)", "scheduler": "a,b"}}}})
    message = f"seed is given 2 times (seed=0,1 and {again}): only one can hold"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_axes(config, ["seed=0,1", again], None)
    found = read_axes(config, ["seed=0,1", "model=a", "model=b"], None)
    assert {key: values(override) for key, override in found.items()} == {
        "seed": ["seed=0", "seed=1"],
        "scheduler": ["scheduler=a", "scheduler=b"],
        "model": ["model=b"],
    }, "a study's axis is replaced, and no axis is lost"


def test_an_axis_that_an_arm_sets_is_refused(sweep: Run) -> None:
    done = sweep("model.name=fine", "engine.block_size=8,16", "+hydra.sweeper.arms={plain:['engine.block_size=32']}")
    assert done.returncode == 2
    assert "engine.block_size=8,16: the study's arm plain sets engine.block_size itself" in done.stderr


def test_paths_are_full_in_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's.jsonl").touch()
    (tmp_path / "b.jsonl").touch()
    (tmp_path / "org").mkdir()
    typed = [
        r"workload.path='it\'s.jsonl',b.jsonl,null",
        "model.path=org",
        "model.tokenizer=org/none",
        "cost_model.path=b.jsonl",
    ]
    paths, model, tokenizer, profile = expand(["-m", *typed])[1:]
    parse = OverridesParser.create().parse_override
    found = [getattr(value, "text", value) for value in parse(paths).sweep_iterator()]
    assert found == [f"{tmp_path}/it's.jsonl", f"{tmp_path}/b.jsonl", None]
    assert parse(model).value() == f"{tmp_path}/org"
    assert tokenizer == "model.tokenizer=org/none", "a hub id"
    assert list(parse(profile).sweep_iterator()) == [f"{tmp_path}/b.jsonl"]
    assert expand(["-m", "workload.path=", "model.path=null"]) == ["-m", "workload.path=choice('')", "model.path=null"]
    assert expand(typed) == typed, "as typed in a single run"
