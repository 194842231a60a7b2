"""Tiny random models of every family, saved by `transformers` and read back by both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

_SHAPE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # far from uniform logits, so that a wrong context changes the token
    "bos_token_id": None,
    "eos_token_id": 511,
    "pad_token_id": None,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**_SHAPE, tie_word_embeddings=True),
    "llama3_rope": LlamaConfig(**_SHAPE, tie_word_embeddings=False, rope_parameters=_LLAMA3_ROPE),
    "qwen2": Qwen2Config(**_SHAPE, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**_SHAPE, head_dim=32, tie_word_embeddings=True),
    "mistral": MistralConfig(**_SHAPE, sliding_window=40, tie_word_embeddings=False),
}


def save_model(family: str, folder: Path) -> None:
    """Write config and random weights of `family` into `folder`."""
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[family], dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)


def greedy_tokens(folder: Path | str, prompts: list[list[int]], max_tokens: int) -> list[list[int]]:
    """What `transformers` generates, one prompt at a time, whole, ignoring EOS."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    outputs = []
    with torch.inference_mode():
        for prompt in prompts:
            ids, past = torch.tensor([prompt]), None
            tokens: list[int] = []
            for _ in range(max_tokens):
                result = model(input_ids=ids, past_key_values=past, use_cache=True)
                past = result.past_key_values
                tokens.append(int(result.logits[0, -1].argmax()))
                ids = torch.tensor([[tokens[-1]]])
            outputs.append(tokens)
    return outputs


def greedy_after(model: Any, prompts: list[list[int]], answers: list[list[int]]) -> list[list[int]]:
    """What `transformers` finds most likely after each prompt and each beginning of its answer, in one pass per prompt.

    `model` is one of its models, or the folder of one.

    It equals `answers` if and only if those are the greedy tokens, which `greedy_tokens` takes a pass each for.
    """
    if isinstance(model, Path | str):
        model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    outputs = []
    with torch.inference_mode():
        for prompt, answer in zip(prompts, answers, strict=True):
            logits_TV = model(input_ids=torch.tensor([prompt + answer[:-1]])).logits[0]
            outputs.append(logits_TV[len(prompt) - 1 :].argmax(-1).tolist())
    return outputs
