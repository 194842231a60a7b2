"""Files that cells read are told apart by their content, not by their place.

A record has `effective.inputs`: for each role the `path` of a file, or folder, and its `sha256`. A role is the key that
names the file (`workload.path`) or a name of its own (`cost_model/profile.json`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framework.records.analysis.cells import Cell

INPUTS = "effective.inputs."
_TRACE = "effective.workload.trace_sha256"
SHOWN_DIGITS = 8


def by_content(cells: Sequence[Cell]) -> None:
    """Rewrite, in `keys` of `cells`, every configuration key that names a file which a cell read.

    Equal contents get one name, the first path under which they were read; different contents under one path get their
    hashes into their names. Of the inputs that no configuration key names, `effective.inputs.ROLE` is the hash.
    """
    named: list[tuple[Cell, str, str]] = []  # cell, key, hash
    for cell in cells:
        hashes = dict(_inputs(cell.summary.get("effective")))
        for key in [key for key in cell.keys if key.startswith(INPUTS)]:
            del cell.keys[key]
        found = {key: role for key, value in cell.keys.items() if (role := _role(key, value, hashes))}
        named += [(cell, key, hashes[role][0]) for key, role in found.items()]
        if "workload.path" not in found and (digest := cell.keys.get(_TRACE)) and cell.keys.get("workload.path"):
            named.append((cell, "workload.path", str(digest)))
        left = {role: digest for role, (digest, _) in hashes.items() if role not in found.values()}
        cell.keys.update({INPUTS + role: digest[: 2 * SHOWN_DIGITS] for role, digest in left.items()})
    paths: dict[tuple[str, str], str] = {}
    for cell, key, digest in named:
        paths.setdefault((key, digest), str(cell.keys[key]))
    names = list(paths.values())
    for cell, key, digest in named:
        path = paths[key, digest]
        cell.keys[key] = path if names.count(path) == 1 else f"{path} (sha256 {digest[:SHOWN_DIGITS]})"


def _inputs(effective: Any) -> list[tuple[str, tuple[str, str]]]:
    """Role, hash and path of every input that is recorded in the right form."""
    inputs = effective.get("inputs") if isinstance(effective, Mapping) else None
    if not isinstance(inputs, Mapping):
        return []
    entries = ((role, one) for role, one in inputs.items() if isinstance(one, Mapping))
    return [
        (str(role), (one["sha256"], str(one.get("path") or "")))
        for role, one in entries
        if isinstance(one.get("sha256"), str)
    ]


def _role(key: str, value: object, hashes: Mapping[str, tuple[str, str]]) -> str | None:
    """The role of the file that `value` is the path of. The record has absolute paths, the configuration typed ones."""
    if not isinstance(value, str) or not value or key.startswith(("effective.", "environment.")):
        return None
    if key in hashes:
        return key
    typed = Path(value).expanduser()
    for role, (_, path) in hashes.items():
        tail = Path(path).parts[-len(typed.parts) :] if path else ()
        if path and (path == value or (typed.parts and tail == typed.parts and typed.suffix)):
            return role
    return None
