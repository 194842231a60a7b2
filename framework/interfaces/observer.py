"""Who watches a run: the recorder, the progress bar, the printer of answers, the tracker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from framework.interfaces.records import RequestRecord, StepRecord
from framework.interfaces.workload import TimedRequest


class Output(Protocol):
    """News of one request: after every step if it streams, else at its end only."""

    @property
    def request_id(self) -> int: ...
    @property
    def new_token_ids(self) -> list[int]: ...
    @property
    def text_delta(self) -> str: ...
    @property
    def finished(self) -> bool: ...
    @property
    def token_ids(self) -> list[int]:
        """All output ids, when finished."""

    @property
    def text(self) -> str:
        """All output text, when finished and if the engine had a reason to decode it (streaming, stop strings)."""

    @property
    def finish_reason(self) -> str | None: ...
    @property
    def record(self) -> RequestRecord | None:
        """Set when finished."""


class Observer:
    """Base with every callback doing nothing. Called between steps on the engine's thread: be quick, never block."""

    def on_request(self, request_id: int, request: TimedRequest) -> None:
        """The engine accepted `request`."""

    def on_reject(self, record: RequestRecord, request: TimedRequest) -> None:
        """`request` was refused; `record.error` says why. Its `record.request_id` is negative and unique."""

    def on_step(self, step: StepRecord) -> None:
        """The engine collected a step."""

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        """What that step produced; once a step rather than once a request, which matters at 256 rows."""
