"""The BurstGPT trace."""

from __future__ import annotations

from collections.abc import Callable

from framework.registry import WORKLOADS
from framework.workloads.traces.trace_fields import CsvColumns, seconds_text, whole_text
from framework.workloads.traces.trace_row import TraceRow
from framework.workloads.traces.trace_workload import TraceWorkload

COLUMNS = ("Timestamp", "Model", "Request tokens", "Response tokens", "Log Type")


@WORKLOADS.register("burstgpt")
class BurstGpt(TraceWorkload):
    """A BurstGPT trace (arXiv 2401.17644): CSV with Timestamp (s), Model, Request tokens, Response tokens, Log Type.

    Its failed requests have 0 response tokens and count as bad lines. The model becomes the request's client, the log
    type its category. The trace does not say what prompts share, so they share nothing.
    """

    source = "BurstGPT_without_fails_1.csv and others, on GitHub in the releases of HPMLL/BurstGPT"
    has_header = True

    def parser(self, header: str) -> Callable[[str], TraceRow]:
        columns = CsvColumns(header, COLUMNS)

        def row(line: str) -> TraceRow:
            time, model, prompt, output, kind = columns.values(line)
            if whole_text("Response tokens", output, 0) == 0:
                raise ValueError("Response tokens=0 marks a request that failed; use a file without_fails")
            return TraceRow(
                time_s=seconds_text("Timestamp", time),
                prompt_tokens=whole_text("Request tokens", prompt, 1),
                output_tokens=int(output),
                client=model,
                category=kind,
            )

        return row
