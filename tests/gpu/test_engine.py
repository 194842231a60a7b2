"""The engine on a CUDA device: every graph strategy gives the tokens of an eager run, and fp32 those of the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from framework.app.llm import LLM
from framework.interfaces.sampling_params import SamplingParams
from tests.parity.families import save_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

PROMPTS = [[(7 * i + j * j) % 500 for j in range(length)] for i, length in enumerate((5, 1, 40, 17, 3, 90, 2))]
PARAMS = [
    SamplingParams(temperature=temperature, max_tokens=count, ignore_eos=True)
    for temperature, count in zip((0, 0.7, 1.0, 0, 0.3, 0, 1.2), (12, 30, 7, 25, 1, 19, 33), strict=True)
]
GREEDY = [SamplingParams(temperature=0, max_tokens=one.max_tokens, ignore_eos=True) for one in PARAMS]


def tokens(params: list[SamplingParams], model: str = "tiny", **options: Any) -> list[list[int]]:
    options = {"max_num_seqs": 5, "max_model_len": 128, "sampler": "gumbel", "dtype": "float32", **options}
    options.setdefault("graph", "eager")
    with LLM(model, max_num_batched_tokens=64, num_blocks=60, **options) as llm:
        return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, params)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved model: random weights of a preset depend on the kind of device."""
    path = tmp_path_factory.mktemp("qwen3")
    save_model("qwen3", path)
    return str(path)


@pytest.fixture(scope="module")
def on_cpu(folder: str) -> list[list[int]]:
    return tokens(GREEDY, folder, device="cpu")


@pytest.mark.parametrize("attention", ["sdpa", "triton"])
@pytest.mark.parametrize("overlap", [0, 1])
def test_greedy_tokens_are_those_of_the_cpu(on_cpu: list[list[int]], folder: str, attention: str, overlap: int) -> None:
    assert tokens(GREEDY, folder, attention=attention, overlap=overlap) == on_cpu


@pytest.mark.parametrize("kernels", ["fused", "torch"])
@pytest.mark.parametrize("graph", ["bucketed", "full", "lazy", "piecewise", "mixed"])
def test_every_graph_strategy_equals_eager(graph: str, kernels: str) -> None:
    want = tokens(PARAMS, attention="triton", kernels=kernels)
    assert tokens(PARAMS, attention="triton", kernels=kernels, graph=graph) == want


def test_steps_with_chunks_replay_graphs() -> None:
    with LLM(
        "tiny", max_num_seqs=5, max_num_batched_tokens=64, max_model_len=128, sampler="gumbel", graph="mixed"
    ) as llm:
        llm.generate(PROMPTS, PARAMS)
        graphs: Any = llm.engine.executor._runner.graphs  # type: ignore[attr-defined]
        replayed = {key.mixed for key, one in graphs.cache._graphs.items() if one.prepared_for}
        assert replayed == {False, True}


@pytest.mark.parametrize("sizes", [[1], [2, 3]])
def test_bucket_lists_are_configurable(sizes: list[int]) -> None:
    want = tokens(PARAMS, attention="triton")
    assert tokens(PARAMS, attention="triton", graph={"name": "full", "sizes": sizes}) == want


def test_lazy_graphs_stay_bounded() -> None:
    with LLM(
        "tiny", max_num_seqs=8, max_model_len=64, sampler="gumbel", graph={"name": "lazy", "max_graphs": 2}
    ) as llm:
        llm.generate(PROMPTS[:4], [SamplingParams(max_tokens=count, ignore_eos=True) for count in (4, 8, 12, 16)])
        graphs: Any = llm.engine.executor._runner.graphs  # type: ignore[attr-defined]
        assert graphs.cache.num_captured >= 3
        assert len(graphs.cache._graphs) <= 2


def test_logprobs_come_with_a_full_graph() -> None:
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=2)
    found = []
    for graph in ("eager", "full"):
        with LLM("tiny", max_model_len=64, sampler="gumbel", dtype="float32", graph=graph) as llm:
            found.append(llm.generate([PROMPTS[0]], params)[0].outputs[0])
    assert found[0].token_ids == found[1].token_ids
    for one, other in zip(found[0].logprobs, found[1].logprobs, strict=True):
        assert one.top[0][0] == other.token_id
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


@pytest.mark.parametrize("level", ["ops", "model"])
def test_compiled_layers_give_the_tokens_of_plain_ones(on_cpu: list[list[int]], folder: str, level: str) -> None:
    assert tokens(GREEDY, folder, attention="sdpa", compile={"level": level}) == on_cpu


@pytest.mark.parametrize("kernels", ["fused", "torch"])
def test_a_narrow_cache_gives_the_same_tokens_in_a_graph(kernels: str) -> None:
    options: dict[str, Any] = {"attention": "triton", "kernels": kernels, "overrides": ["executor.kv_dtype=fp8"]}
    assert tokens(PARAMS, graph="full", **options) == tokens(PARAMS, **options)


@pytest.mark.parametrize("num_rows", [17, 40, 128])
def test_dozens_of_rows_give_the_tokens_of_plain_layers(num_rows: int) -> None:
    """The products between `skinny` and the library, in fp32, where every kernel is exact enough for equal tokens."""
    prompts = [[(7 * row + j * j) % 500 for j in range(1 + row % 9)] for row in range(num_rows)]
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    found = []
    for kernels in ("torch", "fused"):
        with LLM(
            "tiny", max_num_seqs=num_rows, max_model_len=64, dtype="float32", attention="triton", kernels=kernels,
            sampler="gumbel", graph="full",
        ) as llm:  # fmt: skip
            found.append([output.outputs[0].token_ids for output in llm.generate(prompts, params)])
    assert found[0] == found[1]
