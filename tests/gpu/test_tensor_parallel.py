"""Ranks on GPUs: two on one GPU through the host (gloo), and each on its own through NCCL and symmetric memory."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import torch

from framework.app.llm import LLM
from framework.interfaces.errors import RankError
from framework.interfaces.sampling_params import SamplingParams
from tests.parallel.test_failures import children

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")

PROMPTS = [[(7 * i + j * j) % 500 for j in range(length)] for i, length in enumerate((5, 1, 40, 17, 3, 90, 2))]
PARAMS = [
    SamplingParams(temperature=temperature, max_tokens=count, ignore_eos=True, seed=count, logprobs=logprobs)
    for temperature, count, logprobs in zip(
        (0, 0.7, 1.0, 0, 0.3, 0, 1.2), (12, 30, 7, 25, 1, 19, 33), (None, 2, None, None, 1, 3, None), strict=True
    )
]


def tokens(**options: Any) -> list[list[int]]:
    options = {"max_num_seqs": 5, "max_model_len": 128, "sampler": "gumbel", "dtype": "float32", **options}
    with LLM("tiny", max_num_batched_tokens=64, num_blocks=60, attention="triton", **options) as llm:
        return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, PARAMS)]


@pytest.mark.parametrize(  # every pair of values once: an engine of two processes takes long to start
    ("sampler", "kernels", "overlap"),
    [("gumbel", "fused", 0), ("gumbel", "torch", 1), ("full", "fused", 1), ("full", "torch", 0)],
)
def test_two_ranks_on_one_gpu(sampler: str, kernels: str, overlap: int) -> None:
    want = tokens(kernels=kernels, sampler=sampler)
    assert tokens(kernels=kernels, sampler=sampler, tp=2, allreduce="gloo", overlap=overlap) == want


@two_gpus
@pytest.mark.parametrize("allreduce", ["nccl", "symm_mem"])
@pytest.mark.parametrize("graph", ["eager", "bucketed", "full", "lazy", "piecewise"])
def test_a_gpu_each(graph: str, allreduce: str) -> None:
    assert tokens(tp=2, allreduce=allreduce, graph=graph) == tokens()


@two_gpus
@pytest.mark.parametrize("allreduce", ["nccl", "symm_mem"])
def test_engines_one_after_the_other(allreduce: str) -> None:
    """The second meets in the process of the first, and each ends although its graphs hold sums over the ranks."""
    want = tokens()
    for _ in range(3):
        assert tokens(tp=2, allreduce=allreduce, graph="full") == want


@two_gpus
@pytest.mark.parametrize("allreduce", ["nccl", "symm_mem"])
@pytest.mark.parametrize("how", ["close", "kill"])
def test_an_end_in_the_middle_of_a_step(allreduce: str, how: str) -> None:
    with LLM("tiny", tp=2, allreduce=allreduce, graph="full", sampler="gumbel", attention="triton") as llm:
        stream = llm.stream([1, 2, 3], SamplingParams(max_tokens=200, ignore_eos=True))
        for _ in range(5):
            next(stream)
        if how == "kill":
            (worker,) = children()
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(RankError, match="was killed by SIGKILL while running steps"):
                list(stream)
        closing_s = time.monotonic()
    assert time.monotonic() - closing_s < 3
    assert not children()


def test_more_ranks_than_gpus_are_refused() -> None:
    tp = 4
    if torch.cuda.device_count() >= tp:
        pytest.skip("there are enough")
    with pytest.raises(ValueError, match=r"need a GPU each, and torch sees \d"):
        tokens(tp=tp)
