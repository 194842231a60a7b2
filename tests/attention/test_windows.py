"""Layers with a window, and soft caps: backends that have them, and those that do not say so."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from framework.execution.rank.choose_attention import choose_attention
from framework.interfaces.attention import AttentionBackend
from framework.interfaces.errors import IncompatibleError
from framework.registry import ATTENTIONS
from framework.registry.discovery import discover
from tests.attention.cases import Problem, Target, check
from tests.triton_interpreter import INTERPRETED

discover()

ROWS = ((0, 1), (39, 1), (40, 1), (70, 1), (0, 50), (33, 20), (3, 2))


def problem(name: str, window: int | None, softcap: float | None = None) -> Problem:
    return Problem(Target(name), torch.float32, 4, 2, 16, 16, ROWS, 2, seed=5, window=window, softcap=softcap)


@pytest.mark.parametrize("window", [1, 16, 40])
@pytest.mark.parametrize("name", ["sdpa", "paged_cpu"])
def test_a_window_on_one_layer(name: str, window: int) -> None:
    check(ATTENTIONS.get(name), problem(name, window))


@pytest.mark.skipif(not INTERPRETED, reason="needs triton and no CUDA device")
def test_a_window_in_triton() -> None:
    rows = ((39, 1), (20, 5))  # few, since the interpreter is slow
    check(ATTENTIONS.get("triton"), dataclasses.replace(problem("triton", 17), num_heads=2, num_kv_heads=1, rows=rows))


@pytest.mark.parametrize("window", [None, 17])
@pytest.mark.parametrize("name", ["sdpa", "paged_cpu"])
def test_capped_scores(name: str, window: int | None) -> None:
    check(ATTENTIONS.get(name), problem(name, window, softcap=0.5))


def test_the_oracle_sees_the_difference() -> None:
    for window, softcap in ((40, None), (None, 0.5)):
        spec = problem("sdpa", window, softcap).spec
        ignoring = lambda given: ATTENTIONS.get("sdpa")(dataclasses.replace(given, windows=(), softcap=None))  # noqa: E731
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            check(ignoring, problem("sdpa", window, softcap))
        assert bool(spec.windows) == (softcap is None)


def test_a_backend_that_does_not_say_so_is_refused() -> None:
    spec = dataclasses.replace(problem("sdpa", None).spec, windows=(None, 40))
    for name in ("split", "flex", "flash"):
        with pytest.raises(
            IncompatibleError, match=rf"attention={name}: it has no windows.*40 tokens; choose attention"
        ):
            choose_attention({"name": name}, spec, None)
    with pytest.raises(IncompatibleError, match=r"attention=split: it cannot cap scores, as this model does at 30"):
        choose_attention({"name": "split"}, dataclasses.replace(spec, windows=(), softcap=30.0), None)
    backend, name, passed_over = choose_attention({"name": "auto"}, spec, None)
    assert (name, passed_over) == ("paged_cpu", {})
    assert isinstance(backend, AttentionBackend)
    assert [backend.spec.window(layer) for layer in (0, 1)] == [None, 40]
