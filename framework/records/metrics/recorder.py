"""Keeps what a run reports: every step, every finished request, and the tokens of each when asked to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from framework.interfaces.observer import Observer, Output
from framework.interfaces.records import RequestRecord, StepRecord
from framework.interfaces.workload import TimedRequest


@dataclass(slots=True, kw_only=True)
class OutputRecord:
    """What one request produced. `finish_reason` is None if it never ended because the run failed."""

    request_id: int
    prompt: str
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    error: str = ""


class Recorder(Observer):
    """Attributes: `requests` (ended, in order of their end), `steps`, `outputs` (in order of arrival).

    Args:
        keep_outputs: record text and token ids too.
        tokenizer: decodes, after the run, outputs that the engine had no reason to decode; None leaves them empty.
    """

    def __init__(self, *, keep_outputs: bool, tokenizer: Any = None) -> None:
        self.keep_outputs, self.tokenizer = keep_outputs, tokenizer
        self.requests: list[RequestRecord] = []
        self.steps: list[StepRecord] = []
        self._outputs: dict[int, OutputRecord] = {}

    @property
    def outputs(self) -> list[OutputRecord]:
        if self.tokenizer is not None:
            for output in self._outputs.values():
                output.text = output.text or self.tokenizer.decode(output.token_ids, skip_special_tokens=True)
        return list(self._outputs.values())

    def on_request(self, request_id: int, request: TimedRequest) -> None:
        if self.keep_outputs:
            self._outputs[request_id] = OutputRecord(request_id=request_id, prompt=request.label)

    def on_reject(self, record: RequestRecord, request: TimedRequest) -> None:
        self.requests.append(record)
        if self.keep_outputs:
            self._outputs[record.request_id] = OutputRecord(
                request_id=record.request_id, prompt=request.label, finish_reason="rejected", error=record.error
            )

    def on_step(self, step: StepRecord) -> None:
        self.steps.append(step)

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if not output.finished:
                continue  # the last one carries everything
            assert output.record is not None, f"request {output.request_id} finished without a record"
            self.requests.append(output.record)
            if self.keep_outputs:
                kept = self._outputs[output.request_id]
                kept.token_ids, kept.text, kept.finish_reason = output.token_ids, output.text, output.finish_reason
                kept.error = output.record.error
