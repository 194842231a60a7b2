"""Captured steps and fused layers give the tokens of the plain modules; here a graph is a function run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from framework.app.llm import LLM, Completion
from framework.config.settings import settings_of
from framework.execution.graphs.step_graphs import StepGraphs
from framework.execution.rank.runner import Runner
from framework.execution.step.eager_steps import EagerSteps
from framework.execution.step.network import FusedNetwork
from framework.execution.step.sampling import Sampling
from framework.interfaces.graph import GraphKey, GraphLimits, GraphScope, GraphStrategy
from framework.interfaces.sampling_params import SamplingParams
from framework.models.loading.load import load_model
from framework.registry import GRAPHS
from plugins.graphs.mixed import Mixed
from tests.samplers.kernels import as_on_a_gpu
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


MORE: dict[str, list[SamplingParams]] = {
    "full": [
        replace(PARAMS[0], repetition_penalty=1.4, presence_penalty=0.5, logit_bias={7: 3.0, 300: -1.0}),
        replace(PARAMS[1], logprobs=3),
        replace(PARAMS[2], top_k=40, top_p=0.9, min_p=0.01, frequency_penalty=0.3, logprobs=0),
    ],
    "min_p": [replace(PARAMS[0], logprobs=20), replace(PARAMS[1], min_p=0.2), PARAMS[2]],
}


@pytest.mark.parametrize("sampler", MORE)  # `tests/gpu` runs them with more requests
def test_every_sampler_inside_graphs_of_whole_steps(sampler: str) -> None:
    """Decode steps and steps with chunks; requests begin and end, so that parameters are filled in again."""
    options = {**OPTIONS, "sampler": sampler}
    with LLM("tiny", attention="sdpa", **options) as llm:
        want = _completions(llm, MORE[sampler])
    with LLM("tiny", attention="triton", max_num_batched_tokens=4, **options) as llm:
        replayed = use_graphs(llm, Mixed(sizes=[3], token_sizes=[6]))
        got = _completions(llm, MORE[sampler])
    assert {key.mixed for key, _ in replayed} == {False, True}
    for one, other in zip(got, want, strict=True):
        assert one.token_ids == other.token_ids
        assert (one.logprobs is None) == (other.logprobs is None)
        for a, b in zip(one.logprobs or (), other.logprobs or (), strict=True):
            assert (a.token_id, [token for token, _ in a.top]) == (b.token_id, [token for token, _ in b.top])
            values = [b.logprob, *(value for _, value in b.top)]
            assert [a.logprob, *(value for _, value in a.top)] == pytest.approx(values, abs=1e-4)


def test_rows_that_ask_for_nothing_pay_for_nothing() -> None:
    """The second graphs run in those steps alone that hold a row which asks for them."""
    ran: list[str] = []
    with LLM("tiny", attention="triton", **{**OPTIONS, "sampler": "full"}) as llm:
        use_graphs(llm, GRAPHS.build({"name": "full", "sizes": [3]}))
        executor: Any = llm.engine.executor
        for graphs in executor._runner.graphs.cache._graphs.values():
            for name in ("redraw", "logprobs"):
                graph = getattr(graphs, name)
                setattr(graphs, name, _Watched(graph.replay, lambda name=name: ran.append(name)))  # type: ignore[misc]
        plain = replace(PARAMS[2], max_tokens=2)
        llm.generate([[7]], plain)
        assert ran == []
        llm.generate([[7]], replace(plain, top_k=9))
        assert ran == ["redraw"] * 2
        llm.generate([[7]], replace(plain, logprobs=1))
        assert ran[2:] == ["logprobs"] * 2
        llm.generate([[7]], plain)  # its slot was theirs before
        assert len(ran) == 4


class _Watched:
    def __init__(self, replay: Callable[[], Any], tell: Callable[[], None]) -> None:
        self._replay, self._tell = replay, tell

    def replay(self) -> Any:
        self._tell()
        return self._replay()


@pytest.mark.parametrize("kind", [Mixed, MixedForward])
def test_steps_with_chunks_give_the_tokens_of_an_eager_run(kind: type[Mixed]) -> None:
    """Prompts of 5, 1 and 3 tokens at 4 tokens per step: chunks that sample nothing, alone and beside decode rows."""
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


def _completions(llm: LLM, params: list[SamplingParams]) -> list[Completion]:
    return [output.outputs[0] for output in llm.generate(PROMPTS, params)]


def use_graphs(llm: LLM, strategy: GraphStrategy) -> list[tuple[GraphKey, int]]:
    """Put fused layers and graphs into a CPU engine, which has none of its own.

    Returns the keys that are replayed from now on, with the number of sampled rows.
    """
    from framework.execution.kernels.cuda.decoder import FusedDecoder

    executor: Any = llm.engine.executor
    plain: Runner = executor._runner
    as_on_a_gpu(plain.sampler)
    spec = plain.attention.spec
    wanted = settings_of(llm.cfg).model  # loaded again, for weights that are not packed
    model = load_model(wanted, device=spec.device, dtype=spec.dtype, max_model_len=32).model
    network = FusedNetwork(FusedDecoder(model), plain.network.kv_caches)
    num_tokens = 8
    limits = GraphLimits(max_num_seqs=3, max_num_batched_tokens=num_tokens, mixed_supported=True)
    eager = EagerSteps(network, plain.attention, plain.state, Sampling(network, plain.sampler, plain.state))
    graphs = StepGraphs(eager, strategy.scope, max_rows=3, max_tokens=num_tokens, capture=RunAgain)
    for key in strategy.keys(limits):
        graphs.capture(key)
    executor._runner = Runner(eager, graphs, strategy)
    replayed: list[tuple[GraphKey, int]] = []
    replay = graphs.replay

    def kept(batch: Any, key: GraphKey, params: Any, *, redraws: bool) -> Any:
        replayed.append((key, sum(batch.samples)))
        return replay(batch, key, params, redraws=redraws)

    graphs.replay = kept  # type: ignore[method-assign]
    return replayed
