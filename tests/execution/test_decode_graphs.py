"""Captured decode steps and fused layers give the tokens of the plain modules; here a graph is a function run again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from framework.execution.decode_graphs import DecodeGraphs
from framework.execution.network import FusedNetwork
from framework.execution.runner import Runner
from framework.interfaces.graph import GraphLimits
from framework.interfaces.sampling_params import SamplingParams
from framework.llm import LLM
from framework.loading.load import load_model
from framework.registry import GRAPHS
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


@pytest.mark.parametrize("graph", ["bucketed", "full"])
def test_the_tokens_of_an_eager_run(graph: str) -> None:
    options: dict[str, Any] = {"max_num_seqs": 3, "max_model_len": 32, "sampler": "gumbel", "block_size": 4}
    with LLM("tiny", attention="sdpa", **options) as llm:
        want = [output.outputs[0].token_ids for output in llm.generate(PROMPTS, PARAMS)]
    with LLM("tiny", attention="triton", **options) as llm:
        replays = _use_graphs(llm, graph)
        outputs = llm.generate(PROMPTS, PARAMS)
        assert [output.outputs[0].token_ids for output in outputs] == want
        assert replays() >= 2


def _use_graphs(llm: LLM, name: str) -> Callable[[], int]:
    """Put fused layers and graphs into a CPU engine, which has none of its own; returns the count of replays."""
    from framework.kernels.cuda.decoder import FusedDecoder

    executor: Any = llm.engine.executor
    plain: Runner = executor._runner
    plain.sampler.takes_model_dtype = True  # as on a GPU: the fused kernel
    spec = plain.attention.spec
    model = load_model(llm.cfg.model, device=spec.device, dtype=spec.dtype, max_model_len=32).model  # unpacked weights
    network = FusedNetwork(FusedDecoder(model), plain.network.kv_caches)
    strategy = GRAPHS.build({"name": name})
    graphs = DecodeGraphs(network, plain.attention, plain.sampler, plain.state, strategy.scope, 3, capture=RunAgain)
    for key in strategy.keys(GraphLimits(max_num_seqs=3, max_num_batched_tokens=64, mixed_supported=False)):
        graphs.capture(key)
    executor._runner = Runner(network, plain.attention, plain.sampler, plain.state, graphs, strategy)
    count = 0
    replay = graphs.replay

    def counted(*args: Any) -> Any:
        nonlocal count
        count += 1
        return replay(*args)

    graphs.replay = counted  # type: ignore[method-assign]
    return lambda: count
