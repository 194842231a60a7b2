# ruff: noqa: E501
"""Times single kernels and their tiles: `python experiments/gpu_speed/kernels.py skinny attention head gumbel`.

Every timing is of a captured graph over as many sets of weights or caches as a model has layers, so that no input is in
the L2 cache when its turn comes.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
import triton

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.kernels.cuda.decode_attention import DecodeTile, PagedDecode
from framework.kernels.cuda.gumbel import gumbel_argmax
from framework.kernels.cuda.skinny import SkinnyTile, skinny_linear

LAYERS = 28
PEAK_BYTES_PER_S = 4.3e12


def graph_us(run: Callable[[int], object], count: int = LAYERS) -> float:
    """Microseconds of one `run(index)`, from replays of a graph of `count` of them."""
    for index in range(count):
        run(index)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(count):
            run(index)
    times = []
    for _ in range(12):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / count)
    return statistics.median(times[2:])


def skinny() -> None:
    shapes = {"qkv": (1024, 4096, False, True), "o": (2048, 1024, False, False)}
    shapes |= {"gate_up": (1024, 3072, True, True), "down": (3072, 1024, False, False)}
    for name, (num_inputs, num_outputs, gated, normed) in shapes.items():
        rows_out = num_outputs * (2 if gated else 1)
        weights = [torch.randn(rows_out, num_inputs, device="cuda", dtype=torch.bfloat16) for _ in range(LAYERS)]
        norm = torch.randn(num_inputs, device="cuda", dtype=torch.bfloat16)
        ideal = weights[0].numel() * 2 / PEAK_BYTES_PER_S * 1e6
        for rows in (1, 8):
            x = torch.randn(rows, num_inputs, device="cuda", dtype=torch.bfloat16)
            library = graph_us(lambda i, x=x, weights=weights: F.linear(x, weights[i]))
            results = []
            whole = triton.next_power_of_2(num_inputs)
            choices = (
                itertools.product((1, 2, 4, 8), (whole,), (2, 4, 8), (1,))
                if rows == 1
                else itertools.product((8, 16, 32), (128, 256, 512), (2, 4), (3, 5))
            )
            for n, k, warps, stages in choices:
                if n * k > 16384 or n * k < 1024:
                    continue
                tile = SkinnyTile(n, k, warps, stages)
                try:
                    us = graph_us(
                        lambda i, x=x, weights=weights, tile=tile, gated=gated, normed=normed, norm=norm: skinny_linear(
                            x, weights[i], norm_K=norm if normed else None, eps=1e-6, gated=gated, tile=tile
                        )
                    )
                except (triton.runtime.errors.OutOfResources, RuntimeError) as error:
                    print("skip", tile, type(error).__name__)
                    continue
                results.append((us, n, k, warps, stages))
            results.sort()
            best = " ".join(f"{us:.2f}us{tuple(rest)}" for us, *rest in results[:4])
            print(f"skinny {name} rows {rows}: ideal {ideal:.2f} cublas {library:.2f} best {best}", flush=True)


def attention() -> None:
    for rows, length, block_size in ((256, 850, 256), (100, 850, 256), (8, 512, 256), (1, 512, 256)):
        layers = 4 if rows >= 100 else LAYERS
        spread = length // 2 if rows == 100 else 0
        lens = torch.randint(length - spread, length + spread + 1, (rows,), dtype=torch.int32, device="cuda")
        num_blocks = rows * (-(-(length + spread) // block_size) + 1)
        caches = [
            torch.randn(2, num_blocks, block_size, 8, 128, device="cuda", dtype=torch.bfloat16) for _ in range(layers)
        ]
        q = torch.randn(rows, 16, 128, device="cuda", dtype=torch.bfloat16)
        out = torch.empty_like(q)
        table = torch.randperm(num_blocks, device="cuda").int().view(rows, -1)
        num_bytes = 2 * int(lens.sum()) * 8 * 128 * 2
        results = []
        tiles = itertools.product(
            (32, 64, 128),
            (4, 8) if rows <= 8 else (4,),
            (2, 3),
            (1024, 2048, 4096, 8192) if rows >= 100 else (64, 128, 512),
        )
        for tokens, warps, stages, target in tiles:
            tile = DecodeTile(tokens, warps, stages, target)
            decode = PagedDecode(
                num_heads=16, num_kv_heads=8, head_size=128, block_size=block_size, scale=128**-0.5,
                max_num_rows=rows, device=q.device, tile=tile,
            )  # fmt: skip
            plan = decode.plan(lens, table)
            try:
                us = graph_us(
                    lambda i, decode=decode, plan=plan, caches=caches, q=q, out=out: decode(q, caches[i], plan, out),
                    layers,
                )
            except triton.runtime.errors.OutOfResources:
                continue
            results.append((us, tokens, warps, stages, target))
        results.sort()
        best = " ".join(f"{us:.2f}us={num_bytes / us / 1e6:.2f}TB/s{tuple(rest)}" for us, *rest in results[:5])
        print(f"attention rows {rows} length {length} block {block_size}: {best}", flush=True)
        if block_size == 256:
            from flash_attn import flash_attn_with_kvcache

            us = graph_us(
                lambda i, caches=caches, q=q, lens=lens, table=table: flash_attn_with_kvcache(
                    q.unsqueeze(1), caches[i][0], caches[i][1], cache_seqlens=lens, block_table=table, causal=True
                ),
                layers,
            )
            print(f"  flash-attn: {us:.2f}us={num_bytes / us / 1e6:.2f}TB/s", flush=True)
        del caches


def head() -> None:
    weight = torch.randn(151936, 1024, device="cuda", dtype=torch.bfloat16)
    for rows in (1, 8, 256):
        x = torch.randn(rows, 1024, device="cuda", dtype=torch.bfloat16)
        print(
            f"head rows {rows}: ideal {weight.numel() * 2 / PEAK_BYTES_PER_S * 1e6:.1f} cublas {graph_us(lambda i, x=x: F.linear(x, weight), 3):.1f}",
            flush=True,
        )
        results = []
        for n, k, warps, stages in itertools.product((8, 16, 32), (512, 1024), (4, 8), (3,) if rows > 1 else (1,)):
            if rows > 16 or n * k > 32768 or (rows == 1 and k < 1024):
                continue
            tile = SkinnyTile(n, k, warps, stages)
            try:
                results.append(
                    (graph_us(lambda i, x=x, tile=tile: skinny_linear(x, weight, tile=tile), 3), n, k, warps, stages)
                )
            except (triton.runtime.errors.OutOfResources, RuntimeError):
                continue
        results.sort()
        print("  ", *(f"{us:.1f}us{tuple(rest)}" for us, *rest in results[:4]), flush=True)


def gumbel() -> None:
    for rows in (1, 8, 256):
        logits = torch.randn(rows, 151936, device="cuda", dtype=torch.bfloat16)
        ones = torch.ones(rows, device="cuda")
        seed, position = torch.arange(rows, device="cuda"), torch.arange(rows, device="cuda")
        us = graph_us(lambda i, a=(logits, ones, ones, seed, position): gumbel_argmax(*a), 3)
        print(f"gumbel rows {rows}: {us:.1f}us, ideal {logits.numel() * 2 / PEAK_BYTES_PER_S * 1e6:.1f}", flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        {"skinny": skinny, "attention": attention, "head": head, "gumbel": gumbel}[name]()
