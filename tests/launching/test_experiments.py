"""Every study in conf/experiment/ composes, level by level of its axes, and runs in its small, simulated form."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from framework.app.cli.run import main
from framework.app.launching.arguments import EXPERIMENTS, smoke_overrides
from framework.config.compose import compose, prepare

STUDIES = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def axes(study: str) -> dict[str, str]:
    """`hydra.sweeper.params` of the study and of the study that it derives from."""
    config = OmegaConf.load(EXPERIMENTS / f"{study}.yaml")
    base = next((item for item in config.get("defaults", []) if isinstance(item, str) and item in STUDIES), None)
    return {**(axes(base) if base else {}), **(OmegaConf.select(config, "hydra.sweeper.params") or {})}


def levels(study: str) -> list[list[str]]:
    """The first level of every axis, then each level of each axis beside the first ones of the others."""
    prepare([])
    parsed = OverridesParser.create().parse_overrides([f"{key}={values}" for key, values in axes(study).items()])
    of_axis: dict[str, list[str]] = {}
    for axis in parsed:
        key = axis.get_key_element()
        if axis.is_sweep_override() and axis.is_discrete_sweep():
            of_axis[key] = [f"{key}={value}" for value in axis.sweep_string_iterator()]
        elif not axis.is_sweep_override():
            of_axis[key] = [axis.input_line or ""]
    first = {key: values[0] for key, values in of_axis.items()}
    tried = [list(first.values())]
    tried += [list({**first, key: value}.values()) for key, values in of_axis.items() for value in values[1:]]
    arms = OmegaConf.select(OmegaConf.load(EXPERIMENTS / f"{study}.yaml"), "hydra.sweeper.arms") or {}
    own = [list(map(str, arm)) for arm in arms.values()]
    return tried + [[*(o for o in tried[0] if o.partition("=")[0] not in _keys(arm)), *arm] for arm in own]


def _keys(overrides: list[str]) -> set[str]:
    return {text.partition("=")[0] for text in overrides}


@pytest.fixture(autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    GlobalHydra.instance().clear()
    text = (EXPERIMENTS / f"{request.getfixturevalue('study')}.yaml").read_text()
    if "/hydra/sweeper:" in text and importlib.util.find_spec("optuna") is None:
        pytest.skip("needs optuna: pip install '.[sweep]'")


@pytest.mark.parametrize("study", STUDIES)
def test_every_level_composes(study: str) -> None:
    for overrides in levels(study):
        cfg = compose([f"experiment={study}", *overrides])
        assert cfg.study.question.endswith("?"), f"{study} asks no question"


@pytest.mark.parametrize("study", STUDIES)
def test_its_small_form_runs(study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert smoke_overrides(study)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # which main sets, and which tests after this one must not see
    arguments = ["-m", f"experiment={study}", "smoke=true", "hydra/launcher=in_process", f"hydra.sweep.dir={tmp_path}"]
    assert main(arguments) == 0
    statuses = [json.loads(path.read_text()) for path in tmp_path.rglob("summary.json")]
    assert statuses
    assert {record["status"] for record in statuses} <= {"completed", "skipped"}
    completed = [record for record in statuses if record["status"] == "completed"]
    assert completed
    assert all(record["requested"]["executor"]["name"] == "simulated" for record in completed), "small and simulated"
