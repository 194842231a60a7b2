"""`close()` lets go of weights, cache and state at once, whatever the garbage collector does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from framework.app.llm import LLM
from framework.interfaces.sampling_params import SamplingParams
from framework.registry import GRAPHS
from tests.execution.test_step_graphs import OPTIONS, use_graphs
from tests.triton_interpreter import INTERPRETED


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def large_things(llm: LLM) -> dict[str, weakref.ref[Any]]:
    """What an engine keeps in its device's memory, and what holds that."""
    runner: Any = llm.engine.executor._runner  # type: ignore[union-attr]
    found = {"runner": runner, "network": runner.network, "model": runner.network.model, "state": runner.state}
    found |= {f"KV cache {layer}": cache for layer, cache in enumerate(runner.network.kv_caches)}
    found |= {name: tensor for name, tensor in vars(runner.state).items() if hasattr(tensor, "storage")}
    found |= dict(runner.network.model.named_parameters())
    if runner.graphs is not None:
        found |= {"graphs": runner.graphs, "rows": runner.graphs.rows, "graph cache": runner.graphs.cache}
    return {name: weakref.ref(one) for name, one in found.items()}


def left_after(llm: LLM, before_close: Callable[[], None] = lambda: None) -> list[str]:
    with llm:
        llm.generate([[1, 2, 3]], SamplingParams(max_tokens=2, temperature=0, ignore_eos=True))
        found = large_things(llm)
        assert len(found) > 20
        before_close()
    return [name for name, one in found.items() if one() is not None]


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("options", [{}, {"attention": "flash"}, {"attention": "sdpa"}, {"tp": 2}])
def test_an_engine_leaves_nothing(options: dict[str, Any]) -> None:
    assert left_after(LLM("tiny", device="cpu", max_model_len=32, **options)) == []


@pytest.mark.usefixtures("no_collection")
@pytest.mark.skipif(not INTERPRETED, reason="needs triton and no CUDA device")
def test_graphs_leave_nothing() -> None:
    """They and their cache refer to each other."""
    llm = LLM("tiny", attention="triton", **OPTIONS)
    use_graphs(llm, GRAPHS.build({"name": "full", "sizes": [3]}))
    runner: Any = llm.engine.executor._runner  # type: ignore[union-attr]
    del runner.graphs.replay  # the notes that `use_graphs` takes hold the graphs
    captured = runner.graphs.cache._graphs
    del runner

    def forget_bodies() -> None:
        for graphs in captured.values():  # unlike a CUDA graph, `RunAgain` holds what it captured
            graphs.step = graphs.redraw = graphs.logprobs = None

    assert left_after(llm, forget_bodies) == []
