"""Compiles the C++ sources into one shared library, once per machine and source text.

The name of a library ends with the hash of its content, which is compared before each use. A library that a crash cut
short or that a disk changed could end the process by a signal, or compute something else.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE_DIR = Path(__file__).parent / "src"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")
_COMPILERS = ("c++", "g++", "clang++")
_TIMEOUT_S = 300


class BuildError(RuntimeError):
    """The kernels cannot be compiled here. The message says why, and what would help."""


def build_library() -> Path:
    """The compiled library. It comes from the cache if these sources, compiler, flags and CPU have met before.

    A damaged library is built again, with a line on stderr. Two processes may build at the same time: each compiles
    into its own file, which is completely on the disk before it gets its name.

    Raises:
        BuildError: there is no compiler, the compiler fails, or the cache folder cannot be written.
    """
    compiler = _find_compiler()
    sources = sorted(SOURCE_DIR.glob("*.cpp"))
    folder, stem = _cache_dir(), f"cpu-{_fingerprint(compiler)}"
    try:
        for found in sorted(folder.glob(f"{stem}-*.so")):
            if found.name == _named(stem, found):
                return found
            print(f"warning: {found} is damaged: the CPU kernels are compiled again", file=sys.stderr)
            found.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{stem}.", dir=folder) as temporary:
            built = Path(temporary) / "built.so"
            _run([compiler, *FLAGS, "-o", str(built), *map(str, sources)])
            _to_disk(built)
            target = folder / _named(stem, built)
            built.replace(target)
        _to_disk(folder)
    except OSError as error:
        raise BuildError(
            f"{error.filename or folder} cannot be read or written ({error.strerror}); set SERVELAB_CACHE to another "
            f"folder"
        ) from error
    return target


def _named(stem: str, library: Path) -> str:
    """The name of a library with this content."""
    return f"{stem}-{hashlib.sha256(library.read_bytes()).hexdigest()[:32]}.so"


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _find_compiler() -> str:
    """`$CXX`, or the first of the usual compilers that is on the path."""
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
    """What `-march=native` depends on: the model of the CPU and its instruction sets."""
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
        raise BuildError(f"{command[0]} cannot compile the CPU kernels ({message}); set CXX to another compiler")
    return done.stdout
