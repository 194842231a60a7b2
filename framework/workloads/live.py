"""Requests that clients send over HTTP while the run lasts."""

from __future__ import annotations

from collections.abc import Iterator

from framework.interfaces.workload import TimedRequest, Workload, WorkloadContext
from framework.registry import WORKLOADS


@WORKLOADS.register("live")
class Live(Workload):
    """An OpenAI-compatible server (`serving.*`) that runs until SIGTERM or Ctrl-C. Its record holds what was served."""

    is_live = True

    def requests(self, context: WorkloadContext) -> Iterator[TimedRequest]:
        raise ValueError("workload=live has no requests before clients send them; choose another workload")
