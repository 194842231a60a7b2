"""Where a number was obtained: code revision, versions, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import framework

PACKAGES = ("torch", "transformers", "triton", "flash-attn", "numpy", "hydra-core", "wandb")
ROOT = Path(framework.__file__).resolve().parent.parent


def environment(device: str = "cpu") -> dict[str, Any]:
    """What the record says about this machine. A value that cannot be known here is None.

    Args:
        device: torch device that the model runs on, such as `cpu` or `cuda:0`.
    """
    return {
        "servelab": framework.__version__,
        "git_revision": _git("rev-parse", "HEAD"),
        "git_dirty": _is_dirty(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _first_match("/proc/cpuinfo", r"^model name\s*:\s*(.+)$") or platform.processor() or None,
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": device,
        **_device(device),
    }


def _device(device: str) -> dict[str, Any]:
    if not device.startswith("cuda"):
        return {"device_name": None, "device_memory_gib": None, "driver": None, "cuda": None}
    import torch

    properties = torch.cuda.get_device_properties(device)
    return {
        "device_name": properties.name,
        "device_memory_gib": properties.total_memory / 2**30,
        "driver": _first_match("/proc/driver/nvidia/version", r"Kernel Module\s.*?(\d+\.\d+(?:\.\d+)?)"),
        "cuda": torch.version.cuda,
    }


def _git(*arguments: str) -> str | None:
    """Output of a git command in the project's folder; None outside a repository or without git."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _is_dirty() -> bool | None:
    status = _git("status", "--porcelain")
    return None if status is None else bool(status)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_match(path: str, pattern: str) -> str | None:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1).strip() if match else None
