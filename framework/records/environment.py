"""Where a number was obtained: code revision, versions, machine."""

from __future__ import annotations

import functools
import hashlib
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
        **_revision(),
        "installed_files_sha256": None if _is_tracked() else _installed_files(),
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


def _revision() -> dict[str, str | bool | None]:
    """`git_revision` of the code and whether it was changed since (`git_dirty`); None unless git tracks the code.

    An installed package often lies inside of a repository that it does not belong to: that one's revision says nothing.
    """
    if not _is_tracked():
        return {"git_revision": None, "git_dirty": None}
    status = _git("status", "--porcelain", "--", str(ROOT))
    return {"git_revision": _git("rev-parse", "HEAD"), "git_dirty": None if status is None else bool(status)}


@functools.cache
def _is_tracked() -> bool:
    return _git("ls-files", "--error-unmatch", str(Path(framework.__file__).resolve())) is not None


@functools.cache
def _installed_files() -> str | None:
    """Hash over the files of the installed package, as they are now; None where it runs from a checkout.

    In addition to the version, it tells an installed package from one that was edited in place.
    """
    try:
        distribution = importlib.metadata.distribution("servelab")
        files = distribution.files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    here = Path(framework.__file__).resolve()
    paths = sorted((str(file), Path(str(file.locate())).resolve()) for file in files if file.suffix != ".pyc")
    if here not in [path for _, path in paths]:  # an editable install, or another one than the one that runs
        return None
    digest = hashlib.sha256()
    for name, path in paths:
        if ".dist-info/" not in name and path.is_file():
            digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _git(*arguments: str) -> str | None:
    """Output of a git command in the project's folder; None outside a repository, without git, or if it fails."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of a hook, say
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10, env=variables
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


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
