"""Everything that a run needs was compiled before it began, since compiling in a run adds a second to a latency."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from framework.app.llm import LLM
from framework.interfaces.sampling_params import SamplingParams

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


SPLIT = {"name": "split", "prefill": "triton", "decode": "triton"}


@pytest.mark.parametrize(
    ("graph", "attention"),
    [
        ("mixed", "triton"),
        ("full", "triton"),
        ("bucketed", "triton"),
        ("piecewise", "triton"),
        ("eager", "triton"),
        ("eager", SPLIT),
    ],
)
def test_nothing_is_compiled_in_a_run(graph: str, attention: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")
    compiled: list[str] = []

    def hook(**kwargs: Any) -> bool:
        compiled.append(str(kwargs["repr"]))
        return False

    with LLM("tiny", attention=attention, graph=graph, max_num_seqs=20, max_model_len=512) as llm:
        monkeypatch.setattr(triton.knobs.runtime, "jit_cache_hook", hook)
        # Steps of every size, with decode rows in front of chunks, and block tables from one column on.
        lengths = (*range(1, 13), 16, 17, 40, 90, 300, 450)  # more decode rows than 16: another plan of attention
        prompts = [[(3 * i + j) % 500 for j in range(length)] for i, length in enumerate(lengths)]
        for first in range(0, len(prompts), 2):
            params = [SamplingParams(max_tokens=3 + i, ignore_eos=True) for i in range(len(prompts) - first)]
            params[::3] = [dataclasses.replace(one, top_k=5, min_p=0.01, logit_bias={3: 1.0}) for one in params[::3]]
            params[::4] = [dataclasses.replace(one, repetition_penalty=1.2, logprobs=4) for one in params[::4]]
            llm.generate(prompts[first:], params)
    assert not compiled
