"""The request traces of its LLM inference service that Azure published."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from framework.registry import WORKLOADS
from framework.workloads.traces.trace_fields import CsvColumns, whole_text
from framework.workloads.traces.trace_row import TraceRow
from framework.workloads.traces.trace_workload import TraceWorkload


@WORKLOADS.register("azure")
class Azure(TraceWorkload):
    """An Azure LLM inference trace (Splitwise, ISCA'24): CSV with TIMESTAMP, ContextTokens and GeneratedTokens.

    The trace does not say what prompts share, so they share nothing.
    """

    source = "AzureLLMInferenceTrace_conv.csv and _code.csv, on GitHub in Azure/AzurePublicDataset under data"
    has_header = True

    def parser(self, header: str) -> Callable[[str], TraceRow]:
        columns = CsvColumns(header, ("TIMESTAMP", "ContextTokens", "GeneratedTokens"))
        start: datetime | None = None

        def row(line: str) -> TraceRow:
            nonlocal start
            stamp, prompt, output = columns.values(line)
            time = _time(stamp)
            prompt_tokens = whole_text("ContextTokens", prompt, 1)
            output_tokens = whole_text("GeneratedTokens", output, 1)
            start = start or time  # of the first good line; since the epoch, a float would have too few digits
            return TraceRow(
                time_s=(time - start).total_seconds(), prompt_tokens=prompt_tokens, output_tokens=output_tokens
            )

        return row


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"TIMESTAMP={text!r} must be a date and time such as 2023-11-16 18:15:46.68059") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
