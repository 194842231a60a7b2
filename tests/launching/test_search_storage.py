"""A search that keeps its trials in a database goes on from them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from framework.app.launching.arguments import expand
from framework.app.launching.search_storage import open_storage
from tests.launching.conftest import Run

pytest.importorskip("optuna", reason="needs optuna: pip install '.[sweep]'")


def test_a_search_goes_on_from_the_trials_of_the_one_before(sweep: Run, tmp_path: Path) -> None:
    search = ["hydra/sweeper=search", "objective=[output_tokens_per_s]", "model.name=fine", "seed=range(9)"]
    search += ["hydra.sweeper.storage=sqlite:///trials.db", "hydra.sweeper.study_name=mine", "hydra.sweeper.n_trials=2"]
    for number in (1, 2):
        done = sweep(*search, f"hydra.sweep.dir=s{number}")
        assert done.returncode == 0, done.stderr
        with sqlite3.connect(tmp_path / "trials.db") as database:
            trials = database.execute("SELECT state, value FROM trials JOIN trial_values USING (trial_id)").fetchall()
        assert [state for state, _ in trials] == ["COMPLETE"] * 2 * number
        assert {value for _, value in trials} <= {100.0 + seed for seed in range(9)}


def test_only_the_url_of_a_database_is_opened_here() -> None:
    (made,) = expand(["hydra.sweeper.storage=sqlite:///a.db"])
    opener = "framework.app.launching.search_storage.open_storage"
    assert made == f"hydra.sweeper.storage={{_target_:'{opener}',url:'sqlite:///a.db'}}"
    assert expand([made]) == [made]
    others = ["hydra.sweeper.storage=null", "hydra.sweeper.storage=redis://localhost", "model.path=sqlite:///a.db"]
    assert expand(others) == others


@pytest.mark.parametrize("url", ["sqlite:///no/such/folder.db", "sqlit:///a.db", "mysql://localhost/a"])
def test_a_database_that_cannot_be_opened_is_named(url: str) -> None:
    with pytest.raises(ValueError, match=f"hydra.sweeper.storage={url} cannot be opened: .+; name a file, as sqlite:"):
        open_storage(url)
