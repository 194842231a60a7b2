"""The interface of everything that watches a run: the recorder, the progress bar, the printer of answers, trackers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from framework.interfaces.records import RequestRecord, StepRecord
from framework.interfaces.workload import TimedRequest


class Output(Protocol):
    """What is new about one request. A request that streams has one after every step, any other only at its end."""

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
        """All output ids, once the request has finished."""

    @property
    def text(self) -> str:
        """All output text, once the request has finished. It is empty if the engine had no reason to decode it
        (streaming, stop strings)."""

    @property
    def finish_reason(self) -> str | None: ...
    @property
    def record(self) -> RequestRecord | None:
        """The record of the request, once it has finished."""


class Observer:
    """Base class whose callbacks do nothing. The engine's thread calls them between steps, so they must be fast and
    must not block."""

    def on_request(self, request_id: int, request: TimedRequest) -> None:
        """The engine accepted `request`."""

    def on_reject(self, record: RequestRecord, request: TimedRequest) -> None:
        """`request` was refused; `record.error` says why. Its `record.request_id` is negative and unique."""

    def on_step(self, step: StepRecord) -> None:
        """The engine collected a step."""

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        """The outputs of that step, in one call per step. One call per request would be slow at 256 rows."""
