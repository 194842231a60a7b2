# ruff: noqa: E501
"""Times single kernels and their tiles: `python experiments/gpu_speed/kernels.py split attention prefill head gumbel`.

Every timing is of a captured graph over as many sets of weights or caches as a model has layers, so that no input is in
the L2 cache when its turn comes. `compile I N NAMES...` compiles every N-th kernel of the same lists from the I-th on, so
that N processes fill Triton's cache before one of them times.
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
import triton

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.execution.kernels.cuda.decode_attention import DecodeTile, PagedDecode
from framework.execution.kernels.cuda.prefill_attention import PrefillTile, paged_prefill, plan_prefill
from framework.execution.kernels.cuda.sampling.gumbel import gumbel_argmax
from framework.execution.kernels.cuda.skinny import SkinnyTile, skinny_linear
from framework.execution.kernels.cuda.split_linear import SplitTile, split_linear

LAYERS = 28
PEAK_BYTES_PER_S = 4.3e12
FP8 = torch.float8_e4m3fn
TURN = itertools.count()
SHARE: tuple[int, int] | None = None
"""(I, N) while compiling"""


def graph_us(run: Callable[[int], object], count: int = LAYERS) -> float:
    """Microseconds of one `run(index)`, from replays of a graph of `count` of them."""
    if SHARE is not None:
        if next(TURN) % SHARE[1] == SHARE[0]:
            run(0)
        return 0.0
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
    for dtype in (torch.bfloat16, FP8):
        sums: dict[tuple[int, ...], float] = {}
        for rows, length in ((256, 850), (200, 850), (100, 850), (64, 850), (8, 512), (1, 512)):
            for us, *tile in _attention(rows, length, 256, dtype):
                if rows >= 64:
                    sums[tuple(tile)] = sums.get(tuple(tile), 0.0) + us
        best = min(sums, key=sums.__getitem__)
        print(f"best tile of {dtype}: {' '.join(map(str, best))}", flush=True)


def _attention(rows: int, length: int, block_size: int, dtype: torch.dtype) -> list[tuple[float, int, int, int, int]]:
    layers = 4 if rows >= 64 else LAYERS
    spread = length // 2 if rows in (64, 100, 200) else 0
    torch.manual_seed(rows)
    lens = torch.randint(length - spread, length + spread + 1, (rows,), dtype=torch.int32, device="cuda")
    num_blocks = rows * (-(-(length + spread) // block_size) + 1)
    caches = [
        torch.randn(2, num_blocks, block_size, 8, 128, device="cuda", dtype=torch.bfloat16).to(dtype)
        for _ in range(1 if SHARE else layers)
    ]
    q = torch.randn(rows, 16, 128, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(q)
    table = torch.randperm(num_blocks, device="cuda").int().view(rows, -1)
    num_bytes = 2 * int(lens.sum()) * 8 * 128 * dtype.itemsize
    results = []
    tiles = itertools.product((64, 128), (4,), (2, 3), (2, 3, 4, 6) if rows >= 64 else (2, 3, 4))
    for tokens, warps, stages, programs in tiles:
        tile = DecodeTile(tokens, warps, stages, programs)
        decode = PagedDecode(
            num_heads=16, num_kv_heads=8, head_size=128, block_size=block_size, scale=128**-0.5,
            max_num_rows=256, device=q.device, tile=tile,
        )  # fmt: skip
        plan = decode.plan(lens, table)
        try:
            us = graph_us(lambda i, decode=decode, plan=plan: decode(q, caches[i], plan, out), layers)
        except triton.runtime.errors.OutOfResources:
            continue
        results.append((us, tokens, warps, stages, programs))
    results.sort()
    best = " ".join(f"{us:.2f}us={num_bytes / max(us, 1e-9) / 1e6:.2f}TB/s{tuple(rest)}" for us, *rest in results)
    print(f"attention {dtype} rows {rows} length {length}+-{spread} block {block_size}: {best}", flush=True)
    if dtype == torch.bfloat16 and SHARE is None and importlib.util.find_spec("flash_attn"):
        from flash_attn import flash_attn_with_kvcache

        us = graph_us(
            lambda i: flash_attn_with_kvcache(
                q.unsqueeze(1), caches[i][0], caches[i][1], cache_seqlens=lens, block_table=table, causal=True
            ),
            layers,
        )
        print(f"  flash-attn: {us:.2f}us={num_bytes / us / 1e6:.2f}TB/s", flush=True)
    return results


def prefill() -> None:
    """256 requests with 64 new tokens after a shared prefix of 2,048, and 28 prompts of 585 tokens."""
    for dtype in (torch.bfloat16, FP8):
        for rows, new, before in ((256, 64, 2048), (28, 585, 0)):
            _prefill(rows, new, before, dtype)


def _prefill(rows: int, new: int, before: int, dtype: torch.dtype) -> None:
    shared, own = before // 256, -(-new // 256)
    cache = torch.randn(2, shared + rows * own, 256, 8, 128, device="cuda", dtype=torch.bfloat16).to(dtype)
    table = torch.arange(rows * own, device="cuda").view(rows, own) + shared
    table = torch.cat((torch.arange(shared, device="cuda").expand(rows, -1), table), 1).int()
    starts = torch.arange(rows + 1, dtype=torch.int32, device="cuda") * new
    lens = torch.full((rows,), before + new, dtype=torch.int32, device="cuda")
    q = torch.randn(rows * new, 16, 128, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(q)
    flops = 4 * 128 * 16 * rows * (new * before + new * (new + 1) // 2)
    results = []
    for cut in ((128, 64, 8, 3), (128, 128, 8, 2), (128, 128, 8, 3), (64, 64, 4, 3), (64, 128, 4, 3)):
        plan = plan_prefill(
            starts, lens, table, starts.diff(), num_tokens=rows * new, group=2, tile=PrefillTile(*cut), max_num_rows=256
        )
        try:
            us = graph_us(lambda i, plan=plan: paged_prefill(q, cache, plan, 128**-0.5, out), 3)
        except triton.runtime.errors.OutOfResources:
            continue
        results.append((us, *cut))
    results.sort()
    best = " ".join(f"{us:.0f}us={flops / max(us, 1e-9) / 1e6:.0f}TFLOP/s{tuple(rest)}" for us, *rest in results)
    print(f"prefill {dtype} rows {rows} new {new} after {before}: {best}", flush=True)


def split() -> None:
    """Products of dozens of rows: the library's, and ours in every cut."""
    shapes = {"qkv": (1024, 4096, False, (1,)), "o": (2048, 1024, False, (2, 4, 8))}
    shapes |= {"gate_up": (1024, 3072, True, (1,)), "down": (3072, 1024, False, (2, 3, 4, 6))}
    for name, (num_inputs, num_outputs, gated, part_counts) in shapes.items():
        rows_out = num_outputs * (2 if gated else 1)
        weights = [
            torch.randn(rows_out, num_inputs, device="cuda", dtype=torch.bfloat16)
            for _ in range(1 if SHARE else LAYERS)
        ]
        ideal = weights[0].numel() * 2 / PEAK_BYTES_PER_S * 1e6
        for rows in (32, 64, 128):
            x = torch.randn(rows, num_inputs, device="cuda", dtype=torch.bfloat16)
            library = graph_us(lambda i, x=x, weights=weights: F.linear(x, weights[i])) if SHARE is None else 0
            results = []
            for n, k, parts, (warps, stages) in itertools.product(
                (16, 32, 64), (64, 128), part_counts, ((4, 3), (4, 5), (8, 4))
            ):
                if k * (rows + n * (1 + gated)) * 2 * stages > 220_000 or num_inputs % (k * parts):
                    continue
                if (warps == 8 and rows < 128) or (rows == 128 and n == 16):
                    continue
                tile = SplitTile(n, k, parts, warps, stages)
                try:
                    us = graph_us(
                        lambda i, x=x, weights=weights, tile=tile, gated=gated: split_linear(
                            x, weights[i], gated=gated, in_parts=tile.num_parts > 1, tile=tile
                        )
                    )
                except (triton.runtime.errors.OutOfResources, RuntimeError) as error:
                    print("skip", tile, type(error).__name__)
                    continue
                results.append((us, n, k, parts, warps, stages))
            results.sort()
            best = " ".join(f"{us:.2f}us{tuple(rest)}" for us, *rest in results[:6])
            print(f"split {name} rows {rows}: ideal {ideal:.2f} cublas {library:.2f} best {best}", flush=True)


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
    names = sys.argv[1:]
    if names[0] == "compile":
        SHARE, names = (int(names[1]), int(names[2])), names[3:]
    for name in names:
        globals()[name]()
