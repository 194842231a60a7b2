"""Times the CPU kernels on the shapes of SmolLM2-135M, beside PyTorch's: `python experiments/cpu_baseline/kernels.py`.

Prints milliseconds for all 30 layers (the best of a few runs, so that other processes disturb less) as Markdown:
matrix products by row count and kernel, the LM head, attention, and one whole step of the model.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.execution.kernels.cpu.linear import NativeLinear, OneDNNLinear, TorchLinear
from framework.execution.kernels.cpu.optimize import optimize_for_cpu
from framework.interfaces.attention import AttentionSpec, BatchLayout
from framework.models.config import ModelConfig
from framework.models.decoder import DecoderLM
from framework.models.loading.random_weights import fill_random
from plugins.attention.paged_cpu import PagedCPU

LAYERS, HIDDEN, INTERMEDIATE, VOCAB, HEADS, KV_HEADS, HEAD_SIZE, BLOCK_SIZE = 30, 576, 1536, 49152, 9, 3, 64, 16
SHAPES = [(960, HIDDEN), (HIDDEN, HIDDEN), (2 * INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE)]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_SIZE,
    "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}
Kernel = Callable[[Tensor], Tensor]


def best_ms(run: Callable[[], object], repeats: int) -> float:
    # One thread is timed by the CPU time that it got, which other processes don't disturb.
    clock = time.perf_counter if torch.get_num_threads() > 1 else time.thread_time
    run()
    times_s = []
    for _ in range(repeats):
        start = clock()
        run()
        times_s.append(clock() - start)
    return min(times_s) * 1000


def time_linears(rows: list[int], repeats: int) -> None:
    print("| kernel | what |", " | ".join(f"{r} rows" for r in rows), "|")
    print("| --- | --- |", " | ".join("---:" for _ in rows), "|")
    kernels = [("native", NativeLinear, torch.float32), ("native", NativeLinear, torch.bfloat16)]
    kernels += [("onednn", OneDNNLinear, torch.float32), ("torch", TorchLinear, torch.float32)]
    for name, make, dtype in kernels:
        body = [make((torch.randn(shape) * 0.02).to(dtype), None) for _ in range(LAYERS) for shape in SHAPES]
        head = make((torch.randn(VOCAB, HIDDEN) * 0.02).to(dtype), None)
        line, head_line = [], []
        for num_rows in rows:
            x = {size: torch.randn(num_rows, size).to(dtype) for size in (HIDDEN, INTERMEDIATE)}
            line.append(best_ms(lambda body=body, x=x: run_body(body, x), repeats))  # type: ignore[misc]
            few = x[HIDDEN][:64]  # a step samples one row per request
            head_line.append(best_ms(lambda head=head, few=few: head(few), repeats))  # type: ignore[misc]
        label = f"{name} {str(dtype).removeprefix('torch.')}"
        print(f"| {label} | body |", " | ".join(f"{ms:.1f}" for ms in line), "|", flush=True)
        print(f"| {label} | head |", " | ".join(f"{ms:.1f}" for ms in head_line), "|", flush=True)


def run_body(body: list[Kernel], x: dict[int, Tensor]) -> None:
    for index, kernel in enumerate(body):
        kernel(x[SHAPES[index % len(SHAPES)][1]])


def layout(rows: list[tuple[int, int]]) -> BatchLayout:
    """Rows of (new tokens, sequence length), each with blocks of its own."""
    width = max(-(-length // BLOCK_SIZE) for _, length in rows)
    table = torch.randperm(len(rows) * width).view(len(rows), width).int()
    positions = [torch.arange(length - new, length) for new, length in rows]
    slots = [table[r][p // BLOCK_SIZE].long() * BLOCK_SIZE + p % BLOCK_SIZE for r, p in enumerate(positions)]
    starts = torch.tensor([0] + [new for new, _ in rows]).cumsum(0).int()
    lengths = [length for _, length in rows]
    return BatchLayout(
        num_rows=len(rows),
        num_tokens=int(starts[-1]),
        num_decode_rows=sum(new == 1 for new, _ in rows),
        query_start_R1=starts,
        seq_lens_R=torch.tensor(lengths, dtype=torch.int32),
        block_table_RB=table,
        slot_mapping_T=torch.cat(slots),
        positions_T=torch.cat(positions),
        query_start_host=starts.tolist(),
        seq_lens_host=lengths,
    )


def make_backend(dtype: torch.dtype) -> PagedCPU:
    return PagedCPU(
        AttentionSpec(
            device=torch.device("cpu"),
            dtype=dtype,
            kv_dtype=dtype,
            num_heads=HEADS,
            num_kv_heads=KV_HEADS,
            head_size=HEAD_SIZE,
            block_size=BLOCK_SIZE,
            num_layers=LAYERS,
            scale=HEAD_SIZE**-0.5,
            max_num_seqs=32,
            max_num_batched_tokens=1024,
            max_model_len=1024,
        )
    )


BATCHES = {
    "decode, 1 row, context 128": [(1, 128)],
    "decode, 32 rows, context 200": [(1, 200)] * 32,
    "prefill, 256 tokens": [(256, 256)],
    "31 decode rows and a chunk of 128": [(1, 200)] * 31 + [(128, 256)],
}


def time_attention_and_steps(repeats: int) -> None:
    print("\n| batch | dtype | attention ms | step, plain layers ms | step, fused layers ms |")
    print("| --- | --- | ---: | ---: | ---: |")
    for dtype in (torch.float32, torch.bfloat16):
        backend = make_backend(dtype)
        model = DecoderLM(ModelConfig.from_hf(CONFIG), device=torch.device("cpu"), dtype=dtype)
        fill_random(model, 0)
        plain = {}
        for _, layer in model.linear_layers():
            layer.kernel = NativeLinear(layer.weight, None)
        for name, rows in BATCHES.items():
            plain[name] = best_ms(step(model, backend, layout(rows)), repeats)
        for _, layer in model.linear_layers():
            layer.kernel = None
        optimize_for_cpu(model)
        for name, rows in BATCHES.items():
            fused_ms = best_ms(step(model, backend, layout(rows)), repeats)
            attention_ms = best_ms(attention(backend, layout(rows), dtype), repeats)
            print(f"| {name} | {dtype} | {attention_ms:.2f} | {plain[name]:.1f} | {fused_ms:.1f} |", flush=True)


def make_caches(backend: PagedCPU, batch: BatchLayout) -> list[Tensor]:
    shape = backend.kv_cache_shape(batch.block_table_RB.numel())
    return [torch.randn(shape).to(backend.spec.kv_dtype) for _ in range(LAYERS)]


def attention(backend: PagedCPU, batch: BatchLayout, dtype: torch.dtype) -> Callable[[], object]:
    caches = make_caches(backend, batch)
    q, k, v = torch.randn(batch.num_tokens, 15, HEAD_SIZE).to(dtype).split([HEADS, KV_HEADS, KV_HEADS], dim=1)
    return lambda: [backend.forward(i, q, k, v, cache, backend.plan(batch)) for i, cache in enumerate(caches)]


def step(model: DecoderLM, backend: PagedCPU, batch: BatchLayout) -> Callable[[], object]:
    caches = make_caches(backend, batch)
    token_ids_T = torch.randint(VOCAB, (batch.num_tokens,))
    last_R = batch.query_start_R1[1:].long() - 1

    @torch.inference_mode()
    def run() -> Tensor:
        hidden_TD = model(
            token_ids_T,
            batch.positions_T,
            lambda layer, q, k, v: backend.forward(layer, q, k, v, caches[layer], batch),
        )
        return model.compute_logits(hidden_TD[last_R]).argmax(-1)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16, 32, 64, 256, 512])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=["linears", "steps"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads\n")
    if arguments.only != "steps":
        time_linears(arguments.rows, arguments.repeats)
    if arguments.only != "linears":
        time_attention_and_steps(arguments.repeats)


if __name__ == "__main__":
    main()
