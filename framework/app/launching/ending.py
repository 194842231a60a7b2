"""How a cell ended, read from its record; the launcher writes the record of a cell that could not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framework.records.record import SUMMARY, Record, RecordWriter, Status, cell_id
from framework.toolkit.read_file import read_json


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The `summary.json` of `folder`; None if there is none, or only half of one."""
    try:
        summary = read_json(folder / SUMMARY)
    except (FileNotFoundError, ValueError):
        return None
    return summary if isinstance(summary, dict) and "status" in summary else None


def settle(folder: Path, config: dict[str, Any], key: str, how: str, status: Status = "failed") -> tuple[str, str]:
    """Status and reason of the cell that ended in `folder`.

    Args:
        config: its resolved configuration, for the record if it left none.
        key: its resume key, likewise.
        how: what ended its process, in words; "" for a normal end.
        status: of a cell that left no record.
    """
    summary = read_summary(folder)
    if summary is not None:
        note = f"after its record was complete: {how}" if how and summary["status"] == "completed" else ""
        return str(summary["status"]), str(summary["reason"]) or note
    from framework.records.environment import environment

    reason = how or "its process ended without a record"
    record = Record(
        status=status,
        reason=reason,
        cell_id=cell_id(config),
        resume_key=key,
        requested=config,
        environment=environment(),
    )
    try:
        RecordWriter(folder).write(record)
    except (ValueError, OSError) as error:  # a full disk costs the record, not the sweep
        return status, f"{reason}; no record could be written: {error}"
    return status, reason


def objectives(folder: Path, names: Sequence[str]) -> list[float]:
    """The metrics `names` of the record in `folder`, which a search optimises.

    Raises:
        ValueError: the cell did not complete, or has no such metric: a search counts it as a failed trial.
    """
    summary = read_summary(folder)
    if summary is None or summary["status"] != "completed":
        state, reason = (summary["status"], summary["reason"]) if summary else ("ended", "no record")
        raise ValueError(f"no objective: the cell in {folder} {state}: {reason}")
    return [_metric(summary["metrics"], name, folder) for name in names]


def _metric(metrics: Mapping[str, Any], name: str, folder: Path) -> float:
    if name not in metrics:
        raise ValueError(f"objective=[{name}]: no such metric; there are {', '.join(sorted(metrics))}")
    if not isinstance(metrics[name], int | float):
        raise ValueError(f"objective=[{name}]: it is undefined ({metrics[name]}) in {folder}")
    return float(metrics[name])
