"""Canaries: no key, token or password reaches a record, a log or a tracker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from framework.config.compose import compose

ROOT = Path(__file__).parents[2]
CANARY = "canary0f1e2d3c4b5a69788796a5b4c3d2e1f0000"
ENVIRONMENT = {
    "WANDB_API_KEY": CANARY,
    "HF_TOKEN": f"hf_{CANARY}",
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "OPENAI_API_KEY": f"sk-{CANARY}",
    "DATABASE_URL": f"postgresql://user:{CANARY}@host/db",
    "MY_PASSWORD": CANARY,
}
RUN = ["model=tiny", "executor=simulated", "workload=synthetic", "workload.num_requests=2"]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (f"model.path='https://me:{CANARY}@huggingface.co/x'", "model.path"),
        (f"hydra.sweeper.storage='postgresql://me:{CANARY}@host/db'", "hydra.sweeper.storage"),
        (f"+hydra.sweeper.storage='mysql+pymysql://:{CANARY}@host/db'", "hydra.sweeper.storage"),
        (f"workload.path='https://host/trace.csv?token={CANARY}'", "workload.path"),
        (f"workload.path='https://host/trace.csv?x=1&X-Goog-Signature=a&sig={CANARY}'", "workload.path"),
        (f"study.question='{CANARY}'", "study.question"),
        ("study.question='${oc.env:HF_TOKEN}'", "study.question"),
        ("study.tags=['${oc.env:DATABASE_URL}']", r"study\.tags\[0\]"),
    ],
)
def test_what_is_configured_holds_no_secret(monkeypatch: pytest.MonkeyPatch, override: str, key: str) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{key} holds (a password or token in a URL|the value of the env)") as caught:
        compose([*RUN, override])
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["hub/name", "https://host/a?tokens=3&page=2", "http://host:80/x@y", "sqlite:///a.db", "true", "a:b@c"]
)
def test_what_is_no_secret_is_taken(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("USE_TOKEN", "true")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert compose([*RUN, f"study.question='{value}'"]).study.question == value


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["tracker=wandb", "tracker.mode=offline"], 0),
        (["tracker=tensorboard", "-m", "seed=0,1"], 0),
        (["tracker=files", "scheduler=fair", "workload.path=/nowhere"], 2),
        (["tracker=files", "executor=local", "model.weights=auto", "model.path=/nowhere"], 1),
        (["tracker=files", f"model.path='https://me:{CANARY}@host/x'"], 2),
        (["tracker=files", "study.question='${oc.env:HF_TOKEN}'"], 2),
    ],
)
def test_nothing_that_a_run_leaves_holds_one(tmp_path: Path, arguments: list[str], code: int) -> None:
    """Whatever it wrote into its folder, W&B's and Hydra's files included, and onto the screen."""
    folders = [f"hydra.run.dir={tmp_path}/run", f"hydra.sweep.dir={tmp_path}/sweep"]
    done = subprocess.run(
        [sys.executable, "run.py", *RUN, *folders, *arguments],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path / "home")},
        capture_output=True,
        timeout=120,
    )
    assert CANARY.encode() not in done.stdout + done.stderr, done.stderr.decode()[-2000:]
    assert done.returncode == code, done.stderr.decode()[-2000:]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
