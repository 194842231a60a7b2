"""Out of memory says at which stage, how much was wanted, and which key lowers it; the next engine starts clean."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from framework.app.llm import LLM
from framework.interfaces.sampling_params import SamplingParams

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture
def limit() -> Iterator[None]:
    torch.cuda.empty_cache()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def set_limit_gib(gib: float) -> None:
    torch.cuda.set_per_process_memory_fraction(gib * 2**30 / torch.cuda.get_device_properties(0).total_memory)


@pytest.mark.usefixtures("limit")
def test_each_stage_is_named() -> None:
    shape = {"overrides": ["model.weights=random"], "max_model_len": 512, "sampler": "gumbel"}
    set_limit_gib(3.0)  # the peaks are measured in 2.4 GiB; the weights take 1.1 GiB
    with pytest.raises(ValueError, match=r"while allocating the KV cache: .*Tried to allocate .*kv_memory_fraction"):
        LLM("qwen3_0_6b", max_num_seqs=64, **shape)
    with pytest.raises(ValueError, match=r"while loading the weights: .*Tried to allocate .*executor.dtype"):
        LLM("qwen3_8b", **shape)
    torch.cuda.set_per_process_memory_fraction(1.0)
    with LLM("tiny", max_model_len=64, sampler="gumbel", graph="full") as llm:
        llm.generate([[1, 2, 3]], SamplingParams(max_tokens=3, ignore_eos=True))


@pytest.mark.parametrize("sizes", [[1], [1, 2]])
def test_engines_in_a_row_leave_the_memory_as_it_was(sizes: list[int]) -> None:
    """Whatever the garbage collector does, graphs and several ranks included."""
    if max(sizes) > torch.cuda.device_count():
        pytest.skip("needs two CUDA devices")

    def run(tp: int) -> int:
        with LLM("tiny", tp=tp, max_num_seqs=8, max_model_len=256, overrides=["engine.num_blocks=4096"]) as llm:
            llm.generate([[1, 2, 3]], SamplingParams(max_tokens=3, ignore_eos=True))
        return torch.cuda.mem_get_info()[0]

    run(1)  # libraries keep what they allocate at first use
    gc.collect()
    gc.disable()
    try:
        free = [run(sizes[i % len(sizes)]) for i in range(10)]
    finally:
        gc.enable()
    assert max(free) - min(free) < 64 << 20, free  # each cache takes 256 MiB
