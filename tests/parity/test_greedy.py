"""Greedy tokens equal `transformers`' on the same weights, however the engine schedules, caches and preempts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from framework.app.llm import LLM, GenerationOutput
from framework.interfaces.sampling_params import SamplingParams
from tests.parity.families import greedy_tokens, save_model

MAX_TOKENS = 24


def make_prompts() -> list[list[int]]:
    """Twelve prompts, most of which share one of two prefixes."""
    draw = random.Random(3)
    shared = [[draw.randrange(500) for _ in range(40)] for _ in range(2)]
    tails = [[draw.randrange(500) for _ in range(draw.randint(1, 60))] for _ in range(12)]
    return [(shared[i % 2] if i % 4 else []) + tail for i, tail in enumerate(tails)]


PROMPTS = make_prompts()
SCHEDULED = ("llama3_rope", "qwen3", "mistral")
"""Families differ in their layers, which `framework check family=NAME` compares for each. What a schedule does to a
request is the same for all, but for windows, which Mistral has here."""


@pytest.fixture(scope="module", params=SCHEDULED)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]]]:
    """Folder of a family's model, and what `transformers` makes of the prompts."""
    folder = tmp_path_factory.mktemp(request.param)
    save_model(request.param, folder)
    return folder, greedy_tokens(folder, PROMPTS, MAX_TOKENS)


def run(folder: Path, **overrides: Any) -> list[GenerationOutput]:
    settings = {"max_num_seqs": 8, "block_size": 4, "num_blocks": 512, "attention": "sdpa", **overrides}
    with LLM(str(folder), **settings) as llm:
        return llm.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=MAX_TOKENS, ignore_eos=True))


def check(outputs: list[GenerationOutput], expected: list[list[int]]) -> None:
    for output, tokens in zip(outputs, expected, strict=True):
        assert output.outputs[0].token_ids == tokens


CHUNKED = {"whole": {}, "chunked": {"max_num_batched_tokens": 16}}


@pytest.mark.parametrize(  # every pair of two settings' values is in at least one row
    ("scheduler", "prefix_caching", "chunks", "overlap"),
    [
        ("chunked_prefill", True, "chunked", 1),
        ("chunked_prefill", False, "whole", 0),
        ("prefill_first", True, "whole", 0),
        ("prefill_first", False, "chunked", 0),
        ("chunked_prefill", True, "chunked", 0),
        ("prefill_first", False, "whole", 1),
    ],
)
def test_schedule_changes_nothing(
    saved: tuple[Path, list[list[int]]], scheduler: str, prefix_caching: bool, chunks: str, overlap: int
) -> None:
    folder, expected = saved
    outputs = run(folder, scheduler=scheduler, prefix_caching=prefix_caching, overlap=overlap, **CHUNKED[chunks])
    check(outputs, expected)
    cached = sum(output.record.num_cached_tokens for output in outputs if output.record)
    assert (cached > 0) == prefix_caching or chunks == "whole"  # whole prompts of one step cannot share yet


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("scheduler", ["chunked_prefill", "prefill_first"])
def test_preemption_changes_nothing(saved: tuple[Path, list[list[int]]], scheduler: str, overlap: int) -> None:
    folder, expected = saved
    outputs = run(folder, scheduler=scheduler, num_blocks=64, max_model_len=160, overlap=overlap)
    check(outputs, expected)
    assert sum(output.record.num_preemptions for output in outputs if output.record) > 0


@pytest.mark.parametrize("attention", ["paged_cpu", "sdpa"])
def test_every_cpu_backend(saved: tuple[Path, list[list[int]]], attention: str) -> None:
    folder, expected = saved
    check(run(folder, attention=attention, block_size=16, max_num_batched_tokens=64), expected)
