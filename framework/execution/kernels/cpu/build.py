"""Compiles the C++ sources into one shared library, once per machine and source text."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE_DIR = Path(__file__).parent / "src"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")
_COMPILERS = ("c++", "g++", "clang++")
_TIMEOUT_S = 300


class BuildError(RuntimeError):
    """The kernels can't be compiled here; the message says why and what would help."""


def build_library() -> Path:
    """The compiled library, from the cache when the same sources met the same compiler, flags and CPU before.

    Two processes may build at once: each compiles into a file of its own and the last rename wins, with equal content.

    Raises:
        BuildError: if there is no compiler, it fails, or the cache folder can't be written.
    """
    compiler = _find_compiler()
    sources = sorted(SOURCE_DIR.glob("*.cpp"))
    target = _cache_dir() / f"cpu-{_fingerprint(compiler)}.so"
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}.", dir=target.parent) as folder:
            built = Path(folder) / target.name
            _run([compiler, *FLAGS, "-o", str(built), *map(str, sources)])
            built.replace(target)
    except OSError as error:
        raise BuildError(
            f"{target.parent} can't be written ({error.strerror}); set SERVELAB_CACHE to another folder"
        ) from error
    return target


def _find_compiler() -> str:
    """`$CXX`, or the first of the usual names on the path."""
    wanted = os.environ.get("CXX", "").strip()
    for name in (wanted,) if wanted else _COMPILERS:
        if path := shutil.which(name):
            return path
    where = f"CXX={wanted!r} is not" if wanted else f"none of {', '.join(_COMPILERS)} is"
    raise BuildError(f"{where} on the path; install a C++ compiler (Debian: apt-get install g++) or set CXX to one")


def _cache_dir() -> Path:
    return Path(os.environ.get("SERVELAB_CACHE") or Path.home() / ".cache" / "servelab") / "kernels"


def _fingerprint(compiler: str) -> str:
    digest = hashlib.sha256()
    for source in sorted(SOURCE_DIR.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    for text in (*FLAGS, compiler, _run([compiler, "--version"]), platform.machine(), _cpu_description()):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:20]


def _cpu_description() -> str:
    """What `-march=native` looks at: the model and its instruction sets."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    keys = ("vendor_id", "cpu family", "model", "flags", "CPU part", "Features")
    first_cpu = info.read_text().split("\n\n")[0].splitlines()
    return "\n".join(line for line in first_cpu if line.split(":")[0].strip() in keys)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise BuildError(
            f"{command[0]} took over {_TIMEOUT_S} s on the CPU kernels; set CXX to another compiler"
        ) from error
    if done.returncode:
        message = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise BuildError(f"{command[0]} can't compile the CPU kernels ({message}); set CXX to another compiler")
    return done.stdout
