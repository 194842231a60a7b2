"""What of a token's result depends on its batch: `python experiments/gpu_speed/invariance.py DTYPE`, on a GPU.

Random weights in the shape of Qwen3-0.6B, whose flat distributions make ties likely. Prints how many of 22 greedy
answers are equal when prompts are asked twice in one engine and when they are asked alone, how far the hidden state of
a token is from that in a step of 512 tokens, and in how many of its values a product differs from that of two rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.app.llm import LLM
from framework.execution.kernels.cuda import skinny, split_linear
from framework.execution.kernels.cuda.norm import rms_norm
from framework.interfaces.sampling_params import SamplingParams

STEPS = (1, 2, 8, 16, 17, 64, 65, 128, 129, 256, 257, 512)
SHAPES = {
    "Qwen3-0.6B": {"qkv": (1024, 4096), "o": (2048, 1024), "gate_up": (1024, 6144), "down": (3072, 1024)},
    "SmolLM2-135M": {"qkv": (576, 960), "o": (576, 576), "gate_up": (576, 3072), "down": (1536, 576)},
}


def answers(dtype: str) -> None:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(12, 70, (22,), generator=generator).tolist()
    prompts = [torch.randint(0, 40_000, (length,), generator=generator).tolist() for length in lengths]
    params = SamplingParams(temperature=0, max_tokens=48, ignore_eos=True)
    with LLM(
        "qwen3_0_6b", dtype=dtype, sampler="gumbel", graph="mixed", max_num_seqs=64, max_model_len=1024,
        max_num_batched_tokens=2048, num_blocks=2000, block_size=16, overrides=["model.weights=random"],
    ) as llm:  # fmt: skip

        def ask(some: list[list[int]]) -> list[list[int]]:
            return [output.outputs[0].token_ids for output in llm.generate(some, [params] * len(some))]

        first, again = ask(prompts), ask(prompts)
        llm.engine.reset()
        alone = [ask([prompt])[0] for prompt in prompts]
        print(f"{dtype}: of 22 answers equal, asked twice {same(first, again)}, alone {same(first, alone)}", flush=True)
        network: Any = llm.engine.executor._runner.network  # type: ignore[attr-defined]
        hidden_states(dtype, network.decoder, network.kv_caches)


def same(some: list[list[int]], others: list[list[int]]) -> int:
    return sum(one == other for one, other in zip(some, others, strict=True))


@torch.inference_mode()
def hidden_states(dtype: str, decoder: Any, kv_caches: list[Tensor]) -> None:
    ids = torch.randint(0, 40_000, (512,), generator=torch.Generator().manual_seed(4)).cuda().int()
    position = torch.arange(512, device="cuda")

    def hidden(num_tokens: int) -> Tensor:
        step = ids[:num_tokens], position[:num_tokens], torch.full((num_tokens,), -1, device="cuda")
        return decoder.forward(*step, kv_caches, lambda layer, q_TNH: q_TNH.contiguous())[0].float()

    want = hidden(512)
    found = [f"{steps}: {float((hidden(steps) - want).norm() / want.norm()):.1e}" for steps in STEPS]
    print(f"{dtype}: difference of a hidden state, by tokens of its step:", *found, flush=True)


def products(dtype: torch.dtype) -> None:
    for model, shapes in SHAPES.items():
        for name, (num_inputs, num_outputs) in shapes.items():
            x = torch.randn(1024, num_inputs, device="cuda", dtype=dtype)
            weight = torch.randn(num_outputs, num_inputs, device="cuda", dtype=dtype) / num_inputs**0.5
            run = ending_a_block if name in ("o", "down") else plain
            want = run(x[:2].contiguous(), weight)[0]
            found = dict(differing(run, x, weight, want))
            print(f"{dtype} {model} {name}: share of values that differ, by rows: {found}", flush=True)


def differing(
    run: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, want: Tensor
) -> Iterator[tuple[int, float]]:
    for rows in (*STEPS, 700, 1024):
        yield rows, round(float((run(x[:rows].contiguous(), weight)[0] != want).float().mean()), 4)


def plain(x: Tensor, weight: Tensor) -> Tensor:
    if len(x) <= skinny.MAX_ROWS:
        return skinny.skinny_linear(x, weight)
    return split_linear.split_linear(x, weight) if len(x) <= split_linear.MAX_ROWS else F.linear(x, weight)


def ending_a_block(x: Tensor, weight: Tensor) -> Tensor:
    """The residual stream that begins with zeros."""
    residual = torch.zeros(len(x), len(weight), device="cuda")
    if len(x) == 1:
        return skinny.skinny_linear(x, weight, add_to_RN=residual)
    rms_norm(split_linear.add_product(x, weight), torch.ones(len(weight), device="cuda"), 1e-6, residual)
    return residual


if __name__ == "__main__":
    answers(sys.argv[1])
    if sys.argv[1] != "float32":
        products(getattr(torch, sys.argv[1]))
