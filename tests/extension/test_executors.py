"""An executor of a third party is one file: its keys are checked, it runs a whole cell, and the launcher knows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from framework.app.experiment import run_cell
from framework.app.launching.gpus import gpus_wanted
from framework.app.launching.inputs import read_inputs
from framework.config.compose import compose
from framework.records.record import read_record
from framework.records.tracking.base import CellInfo

ECHO = '''
from collections import deque

from framework.engine.config import EngineConfig
from framework.engine.engine import Engine
from framework.engine.intake import Intake
from framework.execution.builder import EngineBuilder
from framework.execution.built import BuiltEngine
from framework.execution.policies import build_policies, renewal
from framework.interfaces.clock import VirtualClock
from framework.interfaces.executor import Executor, StepResult
from framework.models.loading.read_config import load_config
from framework.records.metrics.utilization import ModelCosts
from framework.registry import EXECUTORS


class Echoes(Executor):
    def __init__(self, token_id, num_blocks):
        self.token_id, self.num_blocks, self.clock, self.pending = token_id, num_blocks, VirtualClock(), deque()

    def submit(self, batch):
        self.pending.append(StepResult(batch.step, [self.token_id] * sum(batch.samples)))

    def collect(self):
        return self.pending.popleft()

    def close(self): ...


@EXECUTORS.register("echo")
class Echo(EngineBuilder):
    """Answers with one token, again and again."""

    def __init__(self, *, token_id: int = 3) -> None:
        if token_id < 0:
            raise ValueError(f"executor.token_id={token_id} must be at least 0")
        self.token_id = token_id

    def build(self, cfg):
        model = load_config(cfg.model)
        policies = build_policies(cfg)
        engine = Engine(
            policies.scheduler,
            policies.eviction,
            Echoes(self.token_id, num_blocks=64),
            Intake(vocab_size=model.vocab_size, max_model_len=256, seed=0),
            EngineConfig(block_size=16, max_num_seqs=4, max_num_batched_tokens=64),
            predictor=policies.predictor,
            renew=renewal(cfg),
        )
        costs = ModelCosts(weight_bytes=1, kv_bytes_per_token=1, flops_per_token=1, attention_flops_per_token_pair=1)
        return BuiltEngine(engine, None, model, (), 256, {"device": "echo"}, costs, None, startup_s=0.0)

    @classmethod
    def num_gpus(cls, parameters, num_available):
        return 3
'''


@pytest.fixture
def echo(tmp_path: Path) -> list[str]:
    """Overrides that choose the executor of a file."""
    (tmp_path / "echo.py").write_text(ECHO)
    cell = ["model=tiny", "workload=synthetic", "workload.num_requests=3", "tracker=files", "record.outputs=true"]
    return [f"plugins=[{tmp_path / 'echo.py'}]", "executor=echo", *cell, "workload.prompt_tokens_max=90"]


def test_it_runs_a_cell(echo: list[str], tmp_path: Path) -> None:
    cfg = compose([*echo, "executor.token_id=5"])
    cell = CellInfo(folder=tmp_path / "cell", cell_id="cell", config={"executor": {"name": "echo"}})
    assert run_cell(cfg, cell) == "completed", read_record(tmp_path / "cell").traceback
    record = read_record(tmp_path / "cell")
    assert len(record.requests) == 3
    assert record.outputs is not None
    assert {token for output in record.outputs for token in output.token_ids} == {5}


def test_its_keys_are_checked_before_anything_is_built(echo: list[str]) -> None:
    with pytest.raises(ValueError, match=r"executor\.token_id=-1 must be at least 0"):
        compose([*echo, "executor.token_id=-1"])
    with pytest.raises(ValueError, match=r"unknown key 'executor\.tp'.* executor=echo has the keys: .*token_id"):
        compose([*echo, "executor.tp=2"])


def test_the_launcher_asks_it(echo: list[str]) -> None:
    compose(echo)
    assert gpus_wanted({"name": "echo"}, 8) == 3
    assert read_inputs({"executor": {"name": "echo"}, "model": {"path": str(Path(__file__).parent)}})


def test_no_module_asks_an_executor_for_its_name() -> None:
    root = Path(__file__).parents[2]
    texts = {path: path.read_text(encoding="utf-8") for path in (root / "framework").rglob("*.py")}
    branching = ("executor.name ==", "executor.name !=", 'executor["name"] ==', 'executor["name"] !=')
    assert [str(path) for path, text in texts.items() if any(test in text for test in branching)] == []
