"""The content of a cell's Weights & Biases run, beside its series: configuration, tables, figures, record."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from framework.interfaces.records import RequestRecord
from framework.records.metrics.latency import e2e_s, tpot_s, ttft_s
from framework.records.metrics.summary import COMPLETED
from framework.records.plain import plain
from framework.records.record import OUTPUTS, REQUESTS, STEPS, SUMMARY, Record
from framework.records.tracking.base import CellInfo
from framework.records.tracking.series import X_AXIS

MAX_TABLE_ROWS = 1000
REQUEST_COLUMNS = [f.name for f in fields(RequestRecord) if f.name not in ("deadline_s", "token_times_s")]
OUTPUT_COLUMNS = ["request_id", "prompt", "text", "finish_reason"]
X_AXES = {**dict.fromkeys(("time/*", "step/*", "replica/*"), X_AXIS), "request/*": "request/arrival_s"}
"""Metrics and the metric that they are drawn against."""


def run_id(cell: CellInfo) -> str | None:
    """The id of the run. A cell of a sweep always gets the same one, so that a second try replaces the first.

    It is None outside sweeps, where wandb makes up an id and the same command again is another run.
    """
    if not cell.group:
        return None
    return hashlib.sha256(f"{cell.folder.parent.resolve()}\0{cell.cell_id}".encode()).hexdigest()[:16]


def run_config(cell: CellInfo) -> dict[str, Any]:
    """The configuration as columns of W&B's table: `scheduler` is the choice, `parameters.scheduler` the node.

    (A folder of values could not be grouped by.)
    """
    config = plain(cell.config)
    groups = {
        key for key, value in config.items() if isinstance(value, dict) and ("name" in value or key in cell.choices)
    }
    names = {key: cell.choices.get(key, config[key].get("name")) for key in sorted(groups)}
    return {
        **{key: value for key, value in config.items() if key not in groups},
        **names,
        "parameters": {key: config[key] for key in sorted(groups)},
        "choices": dict(cell.choices),
        "overrides": list(cell.overrides),
        "cell_id": cell.cell_id,
    }


def request_points(requests: Sequence[RequestRecord], max_points: int) -> Iterator[dict[str, float]]:
    """Latencies of at most `max_points` completed requests, evenly spread in order of arrival."""
    completed = sorted((r for r in requests if r.finish_reason in COMPLETED), key=lambda r: r.arrival_s)
    num_points = min(max_points, len(completed))
    for i in range(num_points):
        request = completed[i * len(completed) // num_points]
        values = {"ttft_s": ttft_s(request), "tpot_s": tpot_s(request), "e2e_s": e2e_s(request)}
        point = {f"request/{name}": value for name, value in values.items() if value is not None}
        yield {"request/arrival_s": request.arrival_s, **point}


def tables(record: Record) -> dict[str, Any]:
    """The first requests, and outputs if there are any, as W&B tables."""
    import wandb

    def table(columns: list[str], items: Sequence[Any]) -> Any:
        rows = [[getattr(item, name) for name in columns] for item in items[:MAX_TABLE_ROWS]]
        return wandb.Table(columns=list(columns), data=rows, allow_mixed_types=True)

    found = {"tables/requests": table(REQUEST_COLUMNS, record.requests)}
    if record.outputs:
        found["tables/outputs"] = table(OUTPUT_COLUMNS, record.outputs)
    return found


def images(cell: CellInfo) -> dict[str, Any]:
    """Latency distributions and step timeline of the record in the cell's folder, as W&B images."""
    import wandb
    from PIL import Image

    from framework.records.analysis.cells import Cell
    from framework.records.analysis.figures import latency, save, timeline

    cells = [(cell.name or cell.cell_id, [Cell(folder=cell.folder, status="completed")])]
    figures = {"latency_cdf": latency.draw_lines(cells), "timeline": timeline.draw_rows(cells)}
    found = {}
    for name, figure in figures.items():
        if figure is not None:
            stream = io.BytesIO()
            save(figure, stream, "png")
            found[f"figures/{name}"] = wandb.Image(Image.open(stream))
    return found


def artifact(cell: CellInfo) -> Any:
    """The files of the record. They are uploaded from their place, and nothing is copied."""
    import wandb

    made = wandb.Artifact(f"record-{cell.cell_id}", type="record", metadata={"overrides": list(cell.overrides)})
    for name in (SUMMARY, REQUESTS, STEPS, OUTPUTS):
        if (cell.folder / name).exists():
            made.add_file(str(cell.folder / name), name=name, policy="immutable")
    return made
