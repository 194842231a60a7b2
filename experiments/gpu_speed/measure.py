# ruff: noqa: E501
"""Figures of the GPU engine: `python experiments/gpu_speed/measure.py nano_bench decode kernels ...`, a line each.

Random weights in the shape of Qwen3-0.6B, bf16, on the GPU at hand. Every figure is printed and appended to a JSON file.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.app.llm import LLM
from framework.execution.kernels.cuda import decode_attention, decoder, pdl, skinny, split_linear
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import WorkloadContext
from framework.records.metrics.recorder import Recorder
from framework.records.metrics.summary import summarize
from framework.registry import WORKLOADS
from framework.workloads.drive import drive
from framework.workloads.prepare import prepare

BASE: dict[str, Any] = {
    "sampler": "gumbel",
    "graph": "full",
    "attention": "auto",
    "block_size": 256,
    "max_num_seqs": 256,
    "max_num_batched_tokens": 16384,
    "max_model_len": 4096,
    "overrides": ["model.weights=random"],
}


def engine(model: str = "qwen3_0_6b", **changes: Any) -> LLM:
    options = {**BASE, **changes}
    options["overrides"] = [*BASE["overrides"], *changes.get("overrides", [])]
    return LLM(model, **options)


ASKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "filters": {"temperature": 0.7, "top_p": 0.9, "top_k": 50},
    "penalties": {
        "temperature": 0.7, "top_p": 0.9, "top_k": 50,
        "repetition_penalty": 1.1, "presence_penalty": 0.3, "frequency_penalty": 0.2,
    },
    "logprobs": {"logprobs": 5},
}  # fmt: skip
"""What every request of `sampling` asks for"""


def nano_bench(llm: LLM, repeats: int = 2, **asks: Any) -> dict[str, float]:
    """Output tokens/s of the best and the median repeat, fresh prompts each, the first repeat not counted.

    Every request gets the sampling parameters `asks`.
    """
    rates = []
    for repeat in range(repeats + 1):
        workload = WORKLOADS.build({"name": "nano_bench", "seed": repeat + 1})
        context = WorkloadContext(tokenizer=None, vocab_size=151936, max_model_len=4096, seed=repeat, eos_token_ids=())
        requests = [
            dataclasses.replace(request, params=dataclasses.replace(request.params, **asks))
            for request in prepare(workload, context)
        ]
        recorder = Recorder(keep_outputs=False)
        llm.engine.reset()
        gc.collect()
        gc.freeze()
        started = time.perf_counter()
        drive(llm.engine, requests, [recorder])
        elapsed = time.perf_counter() - started
        tokens = sum(r.num_output_tokens for r in recorder.requests)
        rates.append(tokens / elapsed)
        steps = recorder.steps
        decode = [s for s in steps if not s.num_prefill_tokens]
        last = {
            "steps": len(steps),
            "decode_run_s": round(sum(s.run_s for s in decode), 3),
            "prefill_run_s": round(sum(s.run_s for s in steps) - sum(s.run_s for s in decode), 3),
            "plan_ms_p50": round(1e3 * statistics.median(s.plan_s for s in steps), 3),
        }
    return {"output_tokens_per_s": round(statistics.median(rates[1:])), "best": round(max(rates[1:])), **last}


def at_once(llm: LLM, rows: int, prompt: int, output: int, seed: int, **asks: Any) -> dict[str, float]:
    """Milliseconds a step of `rows` equal requests decoding together: wall clock, and what the GPU spent."""
    generator = torch.Generator().manual_seed(seed)
    params = SamplingParams(**{"temperature": 0.6, "max_tokens": output, "ignore_eos": True, **asks})
    for _ in range(rows):
        ids = torch.randint(0, 10_000, (prompt,), generator=generator).tolist()
        llm.engine.add_request(RequestSpec(prompt_token_ids=ids, params=params))
    recorder = Recorder(keep_outputs=False)
    llm.engine.observers.append(recorder)
    while llm.engine.has_work:
        llm.engine.step()
    llm.engine.observers.remove(recorder)
    decode = [s for s in recorder.steps if not s.num_prefill_tokens and s.num_rows == rows][4:-2]
    gaps = [(b.finish_s - a.finish_s) * 1e3 for a, b in itertools.pairwise(decode)]
    return {
        "ms_a_step": round(statistics.mean(gaps), 4),
        "ms_a_step_p50": round(statistics.median(gaps), 4),
        "gpu_ms_a_step": round(1e3 * statistics.mean(s.run_s for s in decode), 4),
    }


def arrivals(llm: LLM, rate_per_s: float, seconds: float = 5.0) -> dict[str, Any]:
    """Short chats (64 to 512 tokens in, 16 to 256 out) that come one by one: latencies, and steps with prompts in them."""
    spec = {
        "name": "synthetic",
        "num_requests": int(rate_per_s * seconds),
        "arrival": "poisson",
        "rate_per_s": rate_per_s,
    }
    spec |= {"prompt_tokens_min": 64, "prompt_tokens_max": 512, "output_tokens_min": 16, "output_tokens_max": 256}
    for seed in (1, 2):  # the first time is not counted
        context = WorkloadContext(tokenizer=None, vocab_size=151936, max_model_len=4096, seed=seed, eos_token_ids=())
        requests = prepare(WORKLOADS.build({**spec, "temperature": 0.6, "seed": seed}), context)
        recorder = Recorder(keep_outputs=False)
        llm.engine.reset()
        gc.collect()
        gc.freeze()
        drive(llm.engine, requests, [recorder])
    metrics = summarize(recorder.requests, recorder.steps)
    chunked = [s for s in recorder.steps if s.num_prefill_tokens]
    names = ("output_tokens_per_s", "ttft_s/mean", "ttft_s/p99", "tpot_s/mean", "tpot_s/p99")
    return {
        **{name: round(metrics[name] or 0, 5) for name in names},
        "steps": len(recorder.steps),
        "steps_with_prompts": len(chunked),
        "their_run_ms_p50": round(1e3 * statistics.median(s.run_s for s in chunked), 3),
        "their_run_ms_max": round(1e3 * max(s.run_s for s in chunked), 3),
        "in_graphs": sum(s.graph_key != "eager" for s in chunked),
    }


def chunk(llm: LLM, num_new: int, context: int) -> dict[str, float]:
    """Milliseconds of a captured step with one chunk after a cached context (`graph=mixed`): alone, and on the GPU."""
    generator = torch.Generator().manual_seed(9)
    prefix = torch.randint(0, 10_000, (context,), generator=generator).tolist()
    params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
    recorder = Recorder(keep_outputs=False)
    llm.engine.observers.append(recorder)
    for _ in range(12):
        tail = torch.randint(0, 10_000, (num_new,), generator=generator).tolist()
        llm.engine.add_request(RequestSpec(prompt_token_ids=prefix + tail, params=params))
        while llm.engine.has_work:
            llm.engine.step()
    llm.engine.observers.remove(recorder)
    alone = [s.run_s for s in recorder.steps if s.num_prefill_tokens == num_new][1:]
    graphs: Any = llm.engine.executor._runner.graphs  # type: ignore[attr-defined]
    captured = graphs.cache._graphs
    key = min((key for key in captured if key.mixed and key.num_tokens >= num_new), key=lambda key: key.num_tokens)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for replay in range(45):  # the last of those steps, over and over
        if replay == 5:
            start.record()
        captured[key].replay()
    end.record()
    end.synchronize()
    return {"alone_ms": round(1e3 * statistics.median(alone), 3), "gpu_ms": round(start.elapsed_time(end) / 40, 3)}


def shared_prefix(caching: bool) -> dict[str, Any]:
    """TTFT of 256 requests that come at once and share a prefix of 2,048 tokens, the second time round."""
    generator = torch.Generator().manual_seed(5)
    prefix = torch.randint(0, 10_000, (2048,), generator=generator).tolist()
    params = SamplingParams(temperature=0.6, max_tokens=4, ignore_eos=True)

    def arrive(llm: LLM) -> None:
        for _ in range(256):
            tail = torch.randint(0, 10_000, (64,), generator=generator).tolist()
            llm.engine.add_request(RequestSpec(prompt_token_ids=prefix + tail, params=params))

    with engine(prefix_caching=caching, graph="eager") as llm:
        for _ in range(3):
            recorder = Recorder(keep_outputs=False)
            arrive(llm)
            llm.engine.observers.append(recorder)
            while llm.engine.has_work:
                recorder.on_outputs(llm.engine.step())
            llm.engine.observers.remove(recorder)
        times = [r.first_token_s - r.arrival_s for r in recorder.requests if r.first_token_s is not None]
        arrivals, first = [r.arrival_s for r in recorder.requests], recorder.steps[0]
        if caching:
            with profile(activities=[ProfilerActivity.CUDA]) as trace:
                arrive(llm)
                llm.engine.step()
                torch.cuda.synchronize()
            print(kernel_table(trace, 1), flush=True)
        return {
            "ttft_s_p50": round(statistics.median(times), 4),
            "hits": recorder.requests[-1].num_cached_tokens,
            "arrivals_s": round(max(arrivals) - min(arrivals), 4),
            "first_step": {
                "tokens": first.num_prefill_tokens,
                "run_s": round(first.run_s, 4),
                "plan_s": round(first.plan_s, 4),
            },
        }


def profile_steps(llm: LLM, rows: int, prompt: int, steps: int = 12) -> str:
    """Kernel times of steady decode, and the share of the time in which no kernel ran."""
    params = SamplingParams(temperature=0.6, max_tokens=steps + 40, ignore_eos=True)
    for row in range(rows):
        ids = torch.randint(0, 10_000, (prompt,), generator=torch.Generator().manual_seed(row)).tolist()
        llm.engine.add_request(RequestSpec(prompt_token_ids=ids, params=params))
    for _ in range(30 + rows * prompt // 16384):
        llm.engine.step()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        for _ in range(steps):
            llm.engine.step()
        torch.cuda.synchronize()
    while llm.engine.has_work:
        llm.engine.step()
    return f"rows {rows} context {prompt}: {kernel_table(trace, steps)}"


def kernel_table(trace: Any, steps: int) -> str:
    """Time by kernel, and the share of the time between the first and the last in which none ran."""
    events = [e for e in trace.events() if e.device_type.name == "CUDA"]
    spans = sorted((e.time_range.start, e.time_range.end) for e in events)
    busy, end, first = 0.0, spans[0][0], spans[0][0]
    for begin, stop in spans:
        busy += max(0.0, stop - max(begin, end))
        end = max(end, stop)
    by_name: dict[str, list[float]] = {}
    for event in events:
        by_name.setdefault(event.name[:70], []).append(event.time_range.end - event.time_range.start)
    lines = [f"idle share {1 - busy / (end - first):.4f}, {len(events) / steps:.0f} kernels per step"]
    for name, times in sorted(by_name.items(), key=lambda item: -sum(item[1]))[:14]:
        lines.append(
            f"  {sum(times) / steps:9.1f} us a step {len(times) / steps:6.1f} x {statistics.mean(times):7.2f} us  {name}"
        )
    return "\n".join(lines)


def report(out: Path, name: str, values: dict[str, Any]) -> None:
    print(f"{name}: {json.dumps(values)}", flush=True)
    with out.open("a") as file:
        file.write(json.dumps({"name": name, **values}) + "\n")


def attempt(out: Path, name: str, run: Callable[[], dict[str, Any]]) -> None:
    """A variant that fails is reported and the others go on."""
    try:
        report(out, name, run())
    except (ValueError, RuntimeError) as error:
        report(out, name, {"error": f"{type(error).__name__}: {str(error)[:600]}"})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="+")
    parser.add_argument("--model", default="qwen3_0_6b")
    parser.add_argument("--out", type=Path, default=Path("gpu_speed.jsonl"))
    parser.add_argument(
        "--set", nargs="*", default=[], help="engine options and overrides, e.g. attention=flash compile.level=ops"
    )
    parser.add_argument("--no-pdl", action="store_true", help="launch kernels one after the other")
    parser.add_argument("--no-split", action="store_true", help="the library's matrix products for 17 to 128 rows")
    parser.add_argument("--fused-rows", type=int, default=decoder.FUSED_ROWS, help="with norm and residual fused in")
    parser.add_argument("--tile", type=int, nargs=4, help="of decode attention: tokens, warps, stages, programs")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    pdl.enabled = not args.no_pdl
    decoder.FUSED_ROWS = args.fused_rows
    if args.no_split:
        split_linear.MAX_ROWS = skinny.MAX_ROWS
    if args.tile is not None:
        decode_attention.choose_decode_tile = lambda *_: decode_attention.DecodeTile(*args.tile)
    if args.what == ["prefix"]:
        for caching in (True, False):
            attempt(args.out, f"prefix caching={caching}", lambda caching=caching: shared_prefix(caching))
        return
    pairs = [item.split("=", 1) for item in args.set]
    changes: dict[str, Any] = {key: value for key, value in pairs if "." not in key}
    changes["overrides"] = [f"{key}={value}" for key, value in pairs if "." in key]
    started = time.perf_counter()
    with engine(args.model, **changes) as llm:
        report(args.out, "effective", {"start_s": round(time.perf_counter() - started, 2), **llm.effective})
        print(torch.cuda.get_device_name(), torch.__version__, subprocess.getoutput("git rev-parse --short HEAD"))
        for what in args.what:
            if what == "nano_bench":
                attempt(args.out, what, lambda: nano_bench(llm, args.repeats))
            elif what == "sampling":
                for name, asks in ASKS.items():
                    attempt(args.out, f"nano_bench {name}", lambda a=asks: nano_bench(llm, args.repeats, **a))
                    for rows, prompt, output in ((1, 128, 128), (256, 850, 24)):
                        attempt(
                            args.out,
                            f"decode {name} rows={rows} context={prompt}",
                            lambda r=rows, p=prompt, o=output, a=asks: at_once(llm, r, p, o, 1, **a),
                        )
            elif what == "dozens":
                for rows in (24, 32, 48, 64, 80, 96, 128):
                    attempt(args.out, f"decode rows={rows} context=128", lambda r=rows: at_once(llm, r, 128, 24, 1))
            elif what == "arrivals":
                for rate in (30.0, 90.0):
                    attempt(args.out, f"arrivals {rate:.0f}/s", lambda r=rate: arrivals(llm, r))
            elif what == "chunk":  # --set graph=mixed max_model_len=8192
                for num_new, context in ((16, 0), (16, 4352), (40, 4352), (128, 0), (128, 4352), (512, 4352)):
                    attempt(args.out, f"chunk {num_new} after {context}", lambda n=num_new, c=context: chunk(llm, n, c))
            elif what in ("decode", "few"):
                few = ((1, 128, 512), (2, 128, 256), (8, 128, 256), (16, 128, 256))
                for rows, prompt, output in (
                    few if what == "few" else ((1, 128, 512), (8, 128, 256), (64, 850, 40), (256, 850, 40))
                ):
                    attempt(
                        args.out,
                        f"decode rows={rows} context={prompt}",
                        lambda r=rows, p=prompt, o=output: at_once(llm, r, p, o, 1),
                    )
            elif what == "profile":
                for rows, prompt in ((1, 512), (8, 256), (64, 850), (256, 850)):
                    print(profile_steps(llm, rows, prompt), flush=True)


if __name__ == "__main__":
    main()
