"""Log-probabilities of prompts equal those of `transformers`, however the prompt is computed."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from framework.app.build import build
from framework.app.llm import LLM
from framework.app.outputs import GenerationOutput
from framework.app.quality import AnswerSample, _fixed_prompts, answer_quality, attention_quality
from framework.config.settings import settings_of
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import GraphLimits
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest
from plugins.graphs.mixed import Mixed
from tests.parity.families import save_model

SHARED = [(7 * i + 3) % 500 for i in range(40)]
PROMPTS = [[*SHARED, 11, 12, 13], [*SHARED, 400, 1, 2, 3, 4], [9], SHARED[:20]]
TOP = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_model("qwen3", path)
    return path


@pytest.fixture(scope="module")
def exact(folder: Path) -> list[torch.Tensor]:
    """[L - 1, V] log-probabilities of each prompt's tokens from the second on, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1) for ids in PROMPTS]


def check(outputs: list[GenerationOutput], exact: list[torch.Tensor]) -> None:
    for ids, output, exact_LV in zip(PROMPTS, outputs, exact, strict=True):
        got = output.prompt_logprobs
        assert got is not None
        assert got[0] is None
        assert len(got) == len(ids)
        for token, entry, exact_V in zip(ids[1:], got[1:], exact_LV, strict=True):
            assert entry is not None
            assert next(iter(entry)) == token
            assert entry[token].rank == int((exact_V > exact_V[token]).sum()) + 1
            likely = exact_V.topk(TOP).indices.tolist()
            assert set(entry) == {token, *likely}
            assert [entry[one].rank for one in likely] == [1, 2, 3]
            for one, logprob in entry.items():
                assert logprob.logprob == pytest.approx(float(exact_V[one]), abs=2e-4)


def asked(**more: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": 0, "max_tokens": 2, "ignore_eos": True, "prompt_logprobs": TOP, **more})


def run(folder: Path, *, again: bool = False, **settings: Any) -> list[GenerationOutput]:
    defaults: dict[str, Any] = {"max_num_seqs": 4, "block_size": 4, "num_blocks": 64, "attention": "sdpa"}
    with LLM(str(folder), **{**defaults, **settings}) as llm:
        if again:  # every prompt is in the prefix cache now
            llm.generate(PROMPTS, asked(prompt_logprobs=None))
        return llm.generate(PROMPTS, asked(n=2 if again else 1))


def test_prompts_in_the_prefix_cache_are_computed_again(folder: Path, exact: list[torch.Tensor]) -> None:
    outputs = run(folder, again=True, max_num_batched_tokens=7)
    check(outputs, exact)
    assert [output.num_cached_tokens for output in outputs] == [0] * len(PROMPTS)
    second = [output.outputs[1].record for output in outputs]
    assert max(record.num_cached_tokens for record in second if record) >= 40, "the second answer asks for nothing"


@pytest.mark.parametrize("scheduler", ["chunked_prefill", "prefill_first"])
def test_preemption_loses_and_repeats_none(folder: Path, exact: list[torch.Tensor], scheduler: str) -> None:
    outputs = run(folder, scheduler=scheduler, num_blocks=14, max_num_batched_tokens=16, overlap=0)
    check(outputs, exact)
    preempted = sum(output.record.num_preemptions for output in outputs if output.record)
    assert preempted > 0 or scheduler == "prefill_first"


def test_the_whole_vocabulary(folder: Path, exact: list[torch.Tensor]) -> None:
    with LLM(str(folder), num_blocks=16, block_size=4) as llm:
        output = llm.generate([PROMPTS[3]], asked(prompt_logprobs=-1, logprobs=-1, max_tokens=1))[0]
    assert output.prompt_logprobs is not None
    assert output.outputs[0].logprobs is not None
    for entry in [*output.prompt_logprobs[1:], *output.outputs[0].logprobs]:
        assert entry is not None
        assert len(entry) == 512
        assert sum(math.exp(one.logprob) for one in entry.values()) == pytest.approx(1, abs=1e-4)


def test_a_simulated_engine_refuses_them() -> None:
    with LLM("tiny", executor="simulated") as llm, pytest.raises(ValueError, match="prompt_logprobs=3: a simulated"):
        llm.generate([[1, 2]], asked())


def test_their_steps_run_outside_graphs_of_whole_steps(folder: Path, exact: list[torch.Tensor]) -> None:
    """Such a graph keeps the hidden states of the last tokens only. The records of the steps say so."""
    replayed, keys = [], []
    strategy = Mixed(sizes=[3], token_sizes=[256])
    strategy.keys(GraphLimits(max_num_seqs=4, max_num_batched_tokens=256, mixed_supported=True))

    class Graphs:
        def slots_changed(self) -> None:
            pass

        def run(self, batch: StepBatch, key: object) -> Any:
            replayed.append(batch.step)
            raise ValueError("a graph was to be replayed")

        def release(self) -> None:
            pass

    with LLM(str(folder), num_blocks=64, block_size=4, attention="sdpa") as llm:
        runner = llm.engine.executor._runner  # type: ignore[union-attr]
        runner.graphs, runner._strategy = Graphs(), strategy
        observer: Any = SimpleNamespace(on_step=lambda record: keys.append(record.graph_key))
        llm.engine.observers.append(observer)  # type: ignore[union-attr]
        check(llm.generate(PROMPTS, asked(max_tokens=1)), exact)
        assert (replayed, set(keys)) == ([], {"eager"})
        with pytest.raises(ValueError, match="was to be replayed"):
            llm.generate([PROMPTS[0]], asked(max_tokens=1, prompt_logprobs=None))


def test_answers_and_fixed_prompts_are_scored_as_by_transformers(folder: Path, exact: list[torch.Tensor]) -> None:
    sample = AnswerSample()
    halves = [ids[: len(ids) // 2] for ids in PROMPTS if len(ids) > 1]
    for ids, half in zip((ids for ids in PROMPTS if len(ids) > 1), halves, strict=True):
        sample.answers.append((TimedRequest(prompt_token_ids=half, arrival_s=0.0), ids[len(half) :]))
    with LLM(str(folder), num_blocks=32, block_size=4, max_model_len=60, attention="sdpa") as llm:
        metrics = answer_quality(llm._built, sample, 1000)
        prompts = _fixed_prompts(llm._built, 10)
        fixed = attention_quality(llm._built, lambda: build(settings_of(llm.cfg)), 10)
    wanted = [
        float(exact_LV[at - 1, ids[at]])
        for ids, exact_LV in zip(PROMPTS, exact, strict=True)
        for at in range(max(1, len(ids) // 2), len(ids))
    ]
    assert metrics["answer_logprob"] == pytest.approx(sum(wanted) / len(wanted), abs=1e-4)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        losses = [model(torch.tensor([ids]), labels=torch.tensor([ids])).loss for ids in prompts]
    assert fixed["perplexity"] == pytest.approx(math.exp(float(torch.stack(losses).mean())), rel=1e-3)
    assert fixed["perplexity_exact"] == pytest.approx(fixed["perplexity"], rel=1e-5)
    assert fixed["kl_exact_nats"] == pytest.approx(0, abs=1e-5)
