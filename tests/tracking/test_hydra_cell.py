"""What a tracker is told of a cell by the Hydra app that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from framework.app.experiment import hydra_cell
from framework.config.compose import CONF_DIR, prepare
from framework.records.tracking.base import CellInfo


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[CellInfo]:
    overrides = ["experiment=smoke", "scheduler=prefill_first", "seed=3", "engine.num_blocks=64", "study.tags=[t]"]
    prepare(overrides)
    before = HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("config", overrides=overrides, return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.mode = RunMode.MULTIRUN
        cfg.hydra.sweep.dir = str(tmp_path / "my_sweep")
        cfg.hydra.runtime.output_dir = str(tmp_path / "my_sweep" / "7")
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    yield hydra_cell(OmegaConf.create(cfg))
    HydraConfig.instance().cfg = before


def test_names_group_study_and_tags(cell: CellInfo, tmp_path: Path) -> None:
    assert cell.folder == tmp_path / "my_sweep" / "7"
    assert (cell.group, cell.study) == ("my_sweep", "smoke")
    assert cell.tags == ["t", "experiment=smoke", "scheduler=prefill_first"]
    assert cell.name == "experiment=smoke scheduler=prefill_first seed=3"
    assert cell.choices["scheduler"] == "prefill_first"
    assert cell.choices["model"] == "tiny"  # chosen by the experiment
    assert not [group for group in cell.choices if "hydra" in group]
    assert cell.config["engine"]["num_blocks"] == 64
