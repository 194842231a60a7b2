"""Every attention backend against explicit loops in float64, on random mixed batches over a poisoned cache."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings

from framework.registry import ATTENTIONS
from framework.registry.discovery import discover
from tests.attention.cases import Problem, Target, check, problems
from tests.triton_interpreter import INTERPRETED

GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))
HAS_FLASH = importlib.util.find_spec("flash_attn") is not None
HALF = (torch.bfloat16, torch.float16)
FP8 = torch.float8_e4m3fn

BACKENDS = [
    pytest.param(Target("sdpa"), id="sdpa"),
    pytest.param(Target("sdpa", dtypes=(torch.float32,), kv_dtype=FP8), id="sdpa-fp8"),
    pytest.param(Target("sdpa", device="cuda", dtypes=HALF), id="sdpa-cuda", marks=GPU),
    pytest.param(Target("split"), id="split"),
    pytest.param(Target("split", device="cuda", dtypes=HALF), id="split-cuda", marks=GPU),
    pytest.param(Target("flex"), id="flex"),
    pytest.param(
        Target("flex", device="cuda", dtypes=HALF, block_sizes=(16, 64), head_sizes=(64, 128)),
        id="flex-cuda",
        marks=GPU,
    ),
    pytest.param(
        Target("triton", dtypes=(torch.float32,), block_sizes=(3, 16, 64), head_sizes=(16, 40)),
        id="triton-interpreted",
        marks=pytest.mark.skipif(not INTERPRETED, reason="needs triton and no CUDA device"),
    ),
    pytest.param(
        Target("triton", dtypes=(torch.float32,), block_sizes=(3, 16), head_sizes=(16, 40), kv_dtype=FP8),
        id="triton-fp8-interpreted",
        marks=pytest.mark.skipif(not INTERPRETED, reason="needs triton and no CUDA device"),
    ),
    pytest.param(
        Target("triton", device="cuda", dtypes=(torch.float32, *HALF), block_sizes=(1, 3, 16, 32, 128, 256)),
        id="triton",
        marks=GPU,
    ),
    pytest.param(
        Target(
            "triton",
            device="cuda",
            dtypes=HALF,
            block_sizes=(16, 64, 256),
            head_sizes=(64, 128),
            max_length=8000,
            max_checked=8,
        ),
        id="triton-long",
        marks=GPU,
    ),
    pytest.param(
        Target(
            "triton",
            device="cuda",
            dtypes=(torch.bfloat16,),
            block_sizes=(16, 256),
            head_sizes=(64, 128),
            kv_dtype=FP8,
            max_length=2000,
            max_checked=8,
        ),
        id="triton-fp8",
        marks=GPU,
    ),
    pytest.param(
        Target("flash", device="cuda", dtypes=(torch.bfloat16,), block_sizes=(256,), head_sizes=(64, 128)),
        id="flash",
        marks=(*GPU, pytest.mark.skipif(not HAS_FLASH, reason="needs flash-attn")),
    ),
]

EXAMPLES: dict[tuple[str, str | int], int] = {
    ("flex", "cpu"): 3,
    ("flex", "cuda"): 3,
    ("triton", 8000): 10,
    ("triton", "cpu"): 4,
}
"""Fewer than 40 where each combination of head counts and shapes is traced or compiled anew, or interpreted."""


@pytest.fixture(autouse=True, scope="module")
def _plugins() -> None:
    discover()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("target", BACKENDS)
def test_random_mixed_batches(target: Target) -> None:
    key = target.max_length if target.max_length > 2000 else target.device
    num_examples = EXAMPLES.get((target.name, key), 40)
    if target.kv_dtype is not None and INTERPRETED:
        num_examples = 5  # what differs is how numbers are stored; where they are is tested without

    @settings(max_examples=num_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(problem=problems(target))
    def run(problem: Problem) -> None:
        if target.name == "triton" and INTERPRETED:
            assume(sum(map(sum, problem.rows)) * problem.num_heads < 500)  # the interpreter takes a second for more
        backend_class = ATTENTIONS.get(target.name)
        assume(backend_class.unsupported_reason(problem.spec) is None)
        if target.device == "cuda":
            torch._dynamo.reset()  # every example is another model, and a process compiles for a few only
        check(backend_class, problem)

    run()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("target", [one for one in BACKENDS if one.id != "triton-fp8-interpreted"])
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(((0, 1),), id="a prompt of one token"),
        pytest.param(((0, 40),), id="a whole prompt"),
        pytest.param(((0, 33), (0, 7)), id="two whole prompts"),
        pytest.param(((64, 17),), id="a chunk after a prefix"),
        pytest.param(((31, 1), (32, 1), (33, 1)), id="around a block's end"),
        pytest.param(((299, 1), (1, 1), (150, 1), (298, 1)), id="decode rows of very different lengths"),
        pytest.param(((100, 1), (0, 1), (16, 2), (0, 30), (50, 9)), id="everything"),
        pytest.param(tuple((7 * row % 45, 1) for row in range(19)), id="many decode rows"),
    ],
)
def test_named_batches(target: Target, rows: tuple[tuple[int, int], ...]) -> None:
    backend_class = ATTENTIONS.get(target.name)
    block_size = 16 if 16 in target.block_sizes else target.block_sizes[0]
    for dtype in target.dtypes:
        problem = Problem(target, dtype, 6, 2, 64, block_size, rows, num_padding=2, seed=len(rows))
        if target.device == "cuda":
            torch._dynamo.reset()
        assert backend_class.unsupported_reason(problem.spec) is None
        check(backend_class, problem)
