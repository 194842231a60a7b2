"""The preset of charts: built with the real package, saved by a stand-in for W&B's server."""

from __future__ import annotations

import importlib.util
import json
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from framework.__main__ import main

workspaces = pytest.importorskip("wandb_workspaces.workspaces", reason="wandb-workspaces is not installed")


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    client = SimpleNamespace(app_url="https://wandb.example")
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(default_entity="me", client=client))

    def save(self: Any) -> Any:
        self._internal_name = "nw-abc-v"
        made.append(self)
        return self

    monkeypatch.setattr(workspaces.Workspace, "save", save)
    return made


def test_charts_by_choice(saved: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wandb-workspace", "--project", "proj", "--by", "scheduler", "--sweep", "s1"]) == 0
    (workspace,) = saved
    assert (workspace.entity, workspace.project, workspace.name) == ("me", "proj", "ServeLab: s1")
    assert [key.name for key in workspace.runset_settings.groupby] == ["scheduler"]
    text = json.dumps(workspace._to_model().model_dump(by_alias=True, mode="json"))
    for found in ("scheduler.value", "summary:ttft_s/p99", "request/arrival_s", "time/kv_utilization", '"s1"'):
        assert found in text, found
    assert "proj?nw=abc" in capsys.readouterr().out


def test_what_it_needs_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wandb-workspace"]) == 2
    assert "wandb login" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main(["wandb-workspace"]) == 2
    assert "pip install wandb-workspaces" in capsys.readouterr().err


def test_an_error_of_the_server_is_a_line(
    saved: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Any) -> None:
        raise RuntimeError("no such\nproject")

    monkeypatch.setattr(workspaces.Workspace, "save", refuse)
    assert main(["wandb-workspace"]) == 2
    assert capsys.readouterr().err == "error: W&B did not take the workspace: RuntimeError: no such project\n"
