"""Everything that requests can ask of a sampler, in every kind of graph, and logits that are not finite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from framework.app.llm import LLM
from framework.interfaces.errors import NotFiniteError
from framework.interfaces.sampling_params import SamplingParams

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

PROMPTS = [[(7 * i + j * j) % 500 for j in range(length)] for i, length in enumerate((5, 1, 40, 17, 3, 90, 2))]
BASE = SamplingParams(temperature=0.9, max_tokens=24, ignore_eos=True, seed=5)
PARAMS = [
    BASE,
    replace(BASE, top_k=40, top_p=0.9, logprobs=3),
    replace(BASE, temperature=0, repetition_penalty=1.3, presence_penalty=0.5, max_tokens=30),
    replace(BASE, min_p=0.05, frequency_penalty=0.4, logit_bias={7: 2.0, 300: -5.0}, max_tokens=9),
    replace(BASE, temperature=0, logprobs=0),
    replace(BASE, top_p=0.3, max_tokens=33),
    replace(BASE, logprobs=50, max_tokens=12),
]
OPTIONS: dict[str, Any] = {
    "max_num_seqs": 5, "max_model_len": 128, "max_num_batched_tokens": 64, "num_blocks": 60, "dtype": "float32",
    "attention": "triton",
}  # fmt: skip


def completions(params: list[SamplingParams] = PARAMS, **options: Any) -> list[Any]:
    with LLM("tiny", **{**OPTIONS, **options}) as llm:
        return [output.outputs[0] for output in llm.generate(PROMPTS, params)]


@pytest.mark.parametrize("graph", ["auto", "full", "bucketed", "piecewise"])
def test_every_kind_of_graph_gives_the_tokens_of_an_eager_run(graph: str) -> None:
    for one, other in zip(completions(graph=graph), completions(graph="eager"), strict=True):
        assert one.token_ids == other.token_ids
        for a, b in zip(one.logprobs or (), other.logprobs or (), strict=True):
            assert [token for token, _ in a.top] == [token for token, _ in b.top]
            assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def test_the_default_sampler_is_captured_with_prompts_in_the_graph() -> None:
    with LLM("tiny", **OPTIONS) as llm:
        assert llm.effective["graph"] == "mixed"


@pytest.mark.parametrize("sampler", ["min_p", "typical", "eta", "top_k_top_p", "greedy"])
def test_other_samplers_are_captured_too(sampler: str) -> None:
    params = [replace(BASE, temperature=0 if sampler == "greedy" else 0.9, logprobs=2)] * len(PROMPTS)
    want = completions(params, sampler=sampler, graph="eager")
    with LLM("tiny", sampler=sampler, **OPTIONS) as llm:
        assert llm.effective["graph"] == "mixed"
        got = [output.outputs[0] for output in llm.generate(PROMPTS, params)]
    assert [one.token_ids for one in got] == [one.token_ids for one in want]


@pytest.mark.parametrize("graph", ["eager", "auto", "piecewise"])
@pytest.mark.parametrize("sampler", ["full", "greedy", "min_p"])
def test_a_row_that_is_not_finite_ends_its_request_alone(sampler: str, graph: str) -> None:
    params = replace(BASE, temperature=0 if sampler == "greedy" else 0.9, logprobs=2)
    with LLM("tiny", sampler=sampler, graph=graph, **OPTIONS) as llm:
        want = llm.generate(PROMPTS, params)
        llm.engine.reset()  # cached blocks hold what the sound model computed
        model: Any = llm.engine.executor._runner.network.model  # type: ignore[attr-defined]
        poisoned = PROMPTS[2][-1]
        model.embed_tokens.weight.data[poisoned] = torch.nan
        got = llm.generate(PROMPTS, params)
    for prompt, one, other in zip(PROMPTS, got, want, strict=True):
        if poisoned in prompt or poisoned in other.outputs[0].token_ids[:-1]:
            assert isinstance(one.error, NotFiniteError)
        else:
            assert one.outputs[0].token_ids == other.outputs[0].token_ids
    assert any(one.error for one in got)
    assert not all(one.error for one in got)
