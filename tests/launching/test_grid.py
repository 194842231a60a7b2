"""`hydra/sweeper=grid`: what can run does, what cannot is skipped, and a typing mistake ends the sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launching.conftest import Run, cells, summary


def test_a_key_that_some_choices_lack_skips_their_cells(sweep: Run, tmp_path: Path) -> None:
    done = sweep("model.name=fine", "scheduler=chunked_prefill,mlfq", "scheduler.num_levels=3,4")
    assert done.returncode == 0, done.stderr
    assert "4 cells: 2 completed, 2 skipped" in done.stdout
    for cell in cells(tmp_path / "s"):
        record = summary(tmp_path / "s" / cell["folder"])
        assert record["status"] == cell["status"]
        assert (cell["status"] == "completed") == ("scheduler=mlfq" in cell["overrides"])
        if cell["status"] == "skipped":
            assert "unknown key 'scheduler.num_levels'; scheduler=chunked_prefill has the keys:" in record["reason"]


def test_a_key_that_no_cell_has_ends_the_sweep_before_it_begins(sweep: Run, tmp_path: Path) -> None:
    done = sweep("model.name=fine", "scheduler=chunked_prefill,mlfq", "scheduler.nonsense=3")
    assert done.returncode == 2
    assert "unknown key 'scheduler.nonsense'" in done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("seed=range(0)", "seed=range(0): an axis has no value"),
        ("seed=interval(0,9)", "seed=interval(0,9): a grid has no intervals; list values"),
    ],
)
def test_axes_without_values(sweep: Run, tmp_path: Path, axis: str, message: str) -> None:
    done = sweep(axis)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "s").exists()


def test_the_grid_of_the_issue(sweep: Run, tmp_path: Path) -> None:
    done = sweep("model.name=fine", "scheduler=prefill_first,chunked_prefill", "eviction=lru,s3fifo", "seed=range(2)")
    assert done.returncode == 0, done.stderr
    listed = cells(tmp_path / "s")
    assert len(listed) == 8
    assert len({tuple(cell["overrides"]) for cell in listed}) == 8
    lines = [line.split(": ")[0].rpartition(" ")[2] for line in done.stderr.splitlines() if line.startswith("[")]
    assert sorted(lines, key=int) != lines, "cells run in random order"
    assert set(lines) == {str(i) for i in range(8)}


def test_an_arm_stands_for_several_overrides(sweep: Run, tmp_path: Path) -> None:
    arms = "{plain:[],small:['engine.block_size=32','scheduler=mlfq','scheduler.num_levels=2']}"
    done = sweep("model.name=fine", "scheduler=prefill_first", "engine.block_size=8", f"+hydra.sweeper.arms={arms}")
    assert done.returncode == 0, done.stderr
    plain, small = (summary(tmp_path / "s" / name)["requested"] for name in "01")
    assert (plain["study"]["arm"], small["study"]["arm"]) == ("plain", "small")
    assert (plain["engine"]["block_size"], plain["scheduler"]["name"]) == (8, "prefill_first")
    assert (small["engine"]["block_size"], small["scheduler"]["name"]) == (32, "mlfq")
    assert small["scheduler"]["num_levels"] == 2
