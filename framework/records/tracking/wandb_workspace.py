"""A preset of charts for the runs of a W&B project, made with the package wandb-workspaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from framework.records.packages import need
from framework.records.tracking.series import X_AXIS

_SERIES = {
    "steps": ("step/", X_AXIS),
    "time": ("time/", X_AXIS),
    "requests": ("request/", "request/arrival_s"),
}
_OVER_TIME = ("running", "waiting", "kv_utilization", "decode_tokens_per_s", "evictions", "preemptions")


def build(*, entity: str, project: str, by: Sequence[str], sweep: str | None = None) -> Any:
    """The workspace, not saved yet: metrics by choice, the trade of throughput for latency, and the series.

    Args:
        entity: user or team; "" for the login's default.
        project: of the runs.
        by: choices to group runs by, such as `scheduler`.
        sweep: only runs of this group; None for all.

    Raises:
        ValueError: wandb-workspaces is not installed.
    """
    need("wandb_workspaces", "wandb-workspaces")
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    first = panels.Config(by[0])

    def bars(metric: str) -> Any:
        return panels.BarPlot(
            title=metric, metrics=[panels.SummaryMetric(metric)], groupby=first, groupby_aggfunc="mean"
        )

    def lines(name: str, y: Sequence[str]) -> list[Any]:
        prefix, x = _SERIES[name]
        return [panels.LinePlot(title=prefix + one, x=x, y=[prefix + one], groupby=first) for one in y]

    trade = panels.ScatterPlot(
        title="throughput against latency",
        x=panels.SummaryMetric("ttft_s/p99"),
        y=panels.SummaryMetric("output_tokens_per_s"),
    )
    names = [*by, "seed"]
    columns = [panels.ParallelCoordinatesPlotColumn(metric=panels.Config(name)) for name in names]
    columns += [
        panels.ParallelCoordinatesPlotColumn(metric=panels.SummaryMetric(name))
        for name in ("ttft_s/p99", "tpot_s/mean", "output_tokens_per_s")
    ]
    metrics = ("output_tokens_per_s", "goodput_requests_per_s", "ttft_s/p99", "tpot_s/mean", "prefix_cache_hit_rate")
    sections = [
        ws.Section(name="By choice", panels=[*map(bars, metrics), trade], is_open=True),
        ws.Section(name="Choices and metrics", panels=[panels.ParallelCoordinatesPlot(columns=columns)], is_open=True),
        ws.Section(name="Through time", panels=lines("time", _OVER_TIME), is_open=True),
        ws.Section(name="Of a step, on average", panels=lines("steps", ("rows", "run_s", "plan_s"))),
        ws.Section(name="By request", panels=lines("requests", ("ttft_s", "tpot_s", "e2e_s"))),
    ]
    filters = ws.And(ws.Metric("Group") == sweep) if sweep else ""
    settings = ws.RunsetSettings(groupby=[ws.Config(name) for name in by], filters=filters)
    title = f"ServeLab: {sweep}" if sweep else "ServeLab"
    return ws.Workspace(entity=entity, project=project, name=title, sections=sections, runset_settings=settings)
