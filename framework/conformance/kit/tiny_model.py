"""Tiny models with random weights, made by `transformers` and served by the engine from the same files."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.conformance.kit.time_limit import time_limit
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams

TINY: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # far from uniform logits, so that a wrong context changes the token
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
"""The keys of a config that give the size. A family's `examples` add to them."""
_MACHINE = (
    "model=custom",
    "executor.device=cpu",
    "executor.dtype=float32",
    "executor.threads=1",
    "engine.max_num_seqs=4",
    "engine.max_model_len=128",
)
_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """What the engine made of a prompt."""

    prompt: list[int]
    token_ids: list[int]
    logprobs: list[float]
    """The log-probability of each of its tokens"""
    num_cached_tokens: int


def make_model(config: Any) -> Any:
    """The model of a config of `transformers`, its norms and biases random too: ones and zeros would hide mistakes."""
    import torch
    import transformers

    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.empty_like(parameter).uniform_(-0.5, 0.5))
            elif name.endswith("bias"):
                parameter.normal_(0, 0.3)
    return model.eval()


def serve(folder: Path, *overrides: str, num_tokens: int = 6) -> list[Served]:
    """Greedy answers of the model in `folder`, with log-probabilities."""
    from framework.execution.build import build_engine

    prompts = prompts_of(TINY["vocab_size"])
    cfg = settings_of(_composed(overrides))
    cfg.model.path = str(folder)
    engine = build_engine(cfg).single_engine
    params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True, logprobs=0)
    ended: dict[int, Any] = {}
    try:
        for prompt in prompts:
            engine.add_request(RequestSpec(prompt_token_ids=prompt, params=params))
        with time_limit(_LIMIT_S):
            while engine.has_work:
                ended |= {output.request_id: output for output in engine.step() if output.finished}
    finally:
        engine.close()
    served = []
    for number, prompt in enumerate(prompts):
        output = ended[number]
        if output.error is not None:
            raise output.error
        logprobs = [entry.logprob for entry in output.logprobs]
        served.append(Served(prompt, output.token_ids, logprobs, output.record.num_cached_tokens))
    return served


@cache
def _composed(overrides: tuple[str, ...]) -> Any:
    return compose([*_MACHINE, "model.path=FOLDER", *overrides])


def expected(model: Any, served: Served) -> tuple[list[int], list[float]]:
    """What `transformers` finds most likely at each position of an answer, and how likely it finds the answer."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([served.prompt + served.token_ids[:-1]])
        logprobs_TV = model(input_ids=ids).logits[0, len(served.prompt) - 1 :].log_softmax(-1)
    chosen_T = logprobs_TV.gather(1, torch.tensor(served.token_ids)[:, None])[:, 0]
    return logprobs_TV.argmax(-1).tolist(), chosen_T.tolist()


def prompts_of(vocab_size: int) -> list[list[int]]:
    """Five prompts of up to 70 tokens; the first two begin with the same 24, and the last one is the first again."""
    draw = random.Random(3)
    shared = [draw.randrange(vocab_size) for _ in range(24)]
    tails = [[draw.randrange(vocab_size) for _ in range(length)] for length in (46, 5, 1, 40)]
    prompts = [shared + tails[0], shared + tails[1], tails[2], tails[3]]
    return [*prompts, list(prompts[0])]
