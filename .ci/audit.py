"""Compares the lock files with what is newest, with what was withdrawn and with known advisories: `make audit`.

    git clone --depth 1 https://github.com/pypa/advisory-database /tmp/advisories
    make audit ADVISORIES=/tmp/advisories

It is for machines that reach a package index and no service that pip-audit can ask. Without advisories the first two
comparisons are made. The exit code is 1 if a locked version is affected by an advisory or was withdrawn.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-cuda.lock", "requirements-cpu.lock")


def main(folder: Path | None) -> int:
    pins = sorted({pin for name in LOCKS for pin in locked(ROOT / name)})
    newest = {name: version for name, version, _ in compiled("pyproject.toml", "--extra", "dev")}
    older = [(name, version, newest[name]) for name, version in pins if newest.get(name, version) not in version]
    print(f"{len(pins)} locked packages, {len(older)} of them not the newest that fits the others:")
    for name, version, last in older:
        print(f"  {name} {version} ({last})")
    given = "\n".join(f"{name}=={version.partition('+')[0]}" for name, version in pins)
    yanked = [warning for _, _, warning in compiled("-", "--no-deps", given=given) if warning]
    print(f"{len(yanked)} withdrawn", *yanked, sep="\n  ")
    if folder is None:
        print("advisories: none given, none looked at")
        return int(bool(yanked))
    found = list(affected(pins, folder))
    print(f"{len(found)} of {len(list(folder.glob('vulns/*/*.yaml')))} advisories apply", *found, sep="\n  ")
    return int(bool(yanked or found))


def locked(path: Path) -> Iterator[tuple[str, str]]:
    """Name and version of each package of a lock file."""
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^ \\\n]+)", path.read_text(), re.MULTILINE):
        yield canonicalize_name(name), version


def compiled(source: str, *options: str, given: str = "") -> list[tuple[str, str, str]]:
    """Name, version, and the warning that it was withdrawn or "", of what uv makes of `source`."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        source,
        *options,
        "--universal",
        "--python-version",
        "3.11",
    ]
    command += ["--no-header", "--no-annotate"]
    done = subprocess.run(command, cwd=ROOT, input=given, text=True, check=True, capture_output=True)
    warnings = {
        name: line for line in done.stderr.splitlines() for name in re.findall(r"`([a-z0-9-]+)==.*yanked", line)
    }
    pairs = re.findall(r"^([a-z0-9._-]+)==([^ ;\n]+)", done.stdout, re.MULTILINE)
    return [(name, version, warnings.get(name, "")) for name, version in pairs]


def affected(pins: list[tuple[str, str]], folder: Path) -> Iterator[str]:
    """Number, package, version and aliases of each advisory that names a pinned version.

    Args:
        folder: files in the OSV format, as in https://github.com/pypa/advisory-database.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for name, version in pins:
        for path in sorted((folder / "vulns" / name).glob("*.yaml")):
            advisory = yaml.load(path.read_text(), loader)
            entries = [] if advisory.get("withdrawn") else advisory["affected"]
            if any(is_affected(version, entry) for entry in entries if is_of(entry, name)):
                yield f"{advisory['id']} {name} {version} ({', '.join(advisory.get('aliases', []))})"


def is_of(entry: dict[str, Any], name: str) -> bool:
    return bool(canonicalize_name(entry["package"]["name"]) == name)


def is_affected(version: str, entry: dict[str, Any]) -> bool:
    """Whether `entry`, of the list `affected` in the OSV format, names `version`."""
    plain = version.partition("+")[0]
    if plain in entry.get("versions", ()):
        return True
    mine, inside = Version(plain), False
    for span in entry.get("ranges", ()):
        if span["type"] != "ECOSYSTEM":
            continue
        inside = False
        edges = [(Version(text), kind) for event in span["events"] for kind, text in event.items()]
        for edge, kind in sorted(edges):
            if kind == "introduced" and mine >= edge:
                inside = True
            elif (kind == "fixed" and mine >= edge) or (kind == "last_affected" and mine > edge):
                inside = False
        if inside:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] and sys.argv[1] else None))
