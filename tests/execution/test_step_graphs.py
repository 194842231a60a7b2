"""Captured steps and fused layers give the tokens of the plain modules; here a graph is a function run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from framework.app.llm import LLM
from framework.execution.graphs.step_graphs import StepGraphs
from framework.execution.rank.runner import Runner
from framework.execution.step.network import FusedNetwork
from framework.interfaces.graph import GraphKey, GraphLimits, GraphScope, GraphStrategy
from framework.interfaces.sampling_params import SamplingParams
from framework.models.loading.load import load_model
from framework.registry import GRAPHS
from plugins.graphs.mixed import Mixed
from tests.triton_interpreter import INTERPRETED

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="needs triton and no CUDA device")
PROMPTS = [[5, 9, 11, 300, 2], [7], [8, 8, 1]]
PARAMS = [
    SamplingParams(temperature=temperature, max_tokens=count, ignore_eos=True, seed=3)
    for temperature, count in ((0, 3), (0.8, 2), (1.0, 4))
]


class RunAgain:
    """Stands in for a captured graph."""

    def __init__(self, body: Callable[[], Any], pool: object) -> None:
        self.replay = body


OPTIONS: dict[str, Any] = {"max_num_seqs": 3, "max_model_len": 32, "sampler": "gumbel", "block_size": 4}


class MixedForward(Mixed):
    """Samples outside the graph."""

    scope = GraphScope.FORWARD


@pytest.mark.parametrize("graph", ["bucketed", "full"])
def test_the_tokens_of_an_eager_run(graph: str) -> None:
    with LLM("tiny", attention="triton", **OPTIONS) as llm:
        replayed = use_graphs(llm, GRAPHS.build({"name": graph}))
        assert _tokens(llm) == _eager()
        assert len(replayed) >= 2


def test_samplers_that_stay_outside_get_the_same_rows() -> None:
    """Penalties read the tokens of each row, and top-k its parameters."""
    params = [replace(one, top_k=40, repetition_penalty=1.4, presence_penalty=0.5) for one in PARAMS]
    options = {**OPTIONS, "sampler": "full"}
    with LLM("tiny", attention="sdpa", **options) as llm:
        want = _tokens(llm, params)
    with LLM("tiny", attention="triton", max_num_batched_tokens=4, **options) as llm:
        replayed = use_graphs(llm, MixedForward(token_sizes=[6]))
        assert _tokens(llm, params) == want
    assert {key.mixed for key, _ in replayed} == {False, True}


@pytest.mark.parametrize("kind", [Mixed, MixedForward])
def test_steps_with_chunks_give_the_tokens_of_an_eager_run(kind: type[Mixed]) -> None:
    """Prompts of 5, 1 and 3 tokens at four tokens a step: chunks that sample nothing, alone and beside decode rows."""
    with LLM("tiny", attention="triton", max_num_batched_tokens=4, **OPTIONS) as llm:
        replayed = use_graphs(llm, kind(token_sizes=[6]))
        assert _tokens(llm) == _eager()
    mixed = [key for key, _ in replayed if key.mixed]
    assert set(mixed) == {GraphKey(6, 3)}  # with two tokens of padding at least
    assert 0 in [num_sampled for key, num_sampled in replayed if key.mixed]
    assert len(mixed) < len(replayed)


def _eager() -> list[list[int]]:
    with LLM("tiny", attention="sdpa", **OPTIONS) as llm:
        return _tokens(llm)


def _tokens(llm: LLM, params: list[SamplingParams] = PARAMS) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, params)]


def use_graphs(llm: LLM, strategy: GraphStrategy) -> list[tuple[GraphKey, int]]:
    """Put fused layers and graphs into a CPU engine, which has none of its own.

    Returns the keys that are replayed from now on, with the number of sampled rows.
    """
    from framework.execution.kernels.cuda.decoder import FusedDecoder

    executor: Any = llm.engine.executor
    plain: Runner = executor._runner
    plain.sampler.takes_model_dtype = llm.cfg.sampler.name == "gumbel"  # as on a GPU: the fused kernel
    spec = plain.attention.spec
    model = load_model(llm.cfg.model, device=spec.device, dtype=spec.dtype, max_model_len=32).model  # unpacked weights
    network = FusedNetwork(FusedDecoder(model), plain.network.kv_caches)
    num_tokens = 8
    limits = GraphLimits(max_num_seqs=3, max_num_batched_tokens=num_tokens, mixed_supported=True)
    of = (network, plain.attention, plain.sampler, plain.state, strategy.scope)
    graphs = StepGraphs(*of, max_rows=3, max_tokens=num_tokens, capture=RunAgain)
    for key in strategy.keys(limits):
        graphs.capture(key)
    executor._runner = Runner(network, plain.attention, plain.sampler, plain.state, graphs, strategy)
    replayed: list[tuple[GraphKey, int]] = []
    replay = graphs.replay

    def kept(batch: Any, key: GraphKey, params: Any) -> Any:
        replayed.append((key, sum(batch.samples)))
        return replay(batch, key, params)

    graphs.replay = kept  # type: ignore[method-assign]
    return replayed
