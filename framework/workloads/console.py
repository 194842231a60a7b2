"""Prints answers as they stream, for workloads with a person in front of them."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from framework.interfaces.observer import Observer, Output
from framework.interfaces.records import RequestRecord
from framework.interfaces.workload import TimedRequest

# A model's text must not move the cursor or recolour the terminal: control characters other than newline and tab.
_CONTROL = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
BOLD, RESET = "\033[1m", "\033[0m"


@dataclass(slots=True)
class _Answer:
    label: str
    text: str = ""
    """Received and not printed yet."""
    started: bool = False
    finish_reason: str | None = None


class AnswerPrinter(Observer):
    """Streams the oldest unfinished answer; the others are held back and printed whole when their turn comes.

    Answers thus come out in the order of their prompts and never mixed. Escape codes are written to a terminal only.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.bold, self.reset = (BOLD, RESET) if self.stream.isatty() else ("", "")
        self._answers: OrderedDict[int, _Answer] = OrderedDict()

    def on_request(self, request_id: int, request: TimedRequest) -> None:
        self._answers[request_id] = _Answer(request.label)

    def on_reject(self, record: RequestRecord, request: TimedRequest) -> None:
        answer = _Answer(request.label, text=f"(rejected: {record.error})", finish_reason="rejected")
        self._answers[record.request_id] = answer
        self._print()

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            answer = self._answers[output.request_id]
            answer.text += output.text_delta
            if output.finished:
                answer.finish_reason = output.finish_reason or "stop"
                if output.record is not None and output.record.error:
                    answer.text += f" (failed: {output.record.error})"
        self._print()

    def close(self) -> None:
        """Print what was held back of answers that will not finish, after an interrupt."""
        for answer in self._answers.values():
            answer.finish_reason = answer.finish_reason or "interrupted"
        self._print()

    def _print(self) -> None:
        while self._answers:
            request_id, answer = next(iter(self._answers.items()))
            if not answer.started:
                self._write(f"{self.bold}> {answer.label.translate(_CONTROL)}{self.reset}\n")
                answer.started = True
            self._write(answer.text.translate(_CONTROL))
            answer.text = ""
            if answer.finish_reason is None:
                break
            cut = {"length": " [...]", "abort": " [aborted]", "interrupted": " [interrupted]"}.get(
                answer.finish_reason, ""
            )
            self._write(f"{cut}\n\n")
            del self._answers[request_id]
        self.stream.flush()

    def _write(self, text: str) -> None:
        if text:
            # A pipe may be opened with an encoding that lacks some characters of the answer.
            encoding = getattr(self.stream, "encoding", None) or "utf-8"
            self.stream.write(text.encode(encoding, "replace").decode(encoding))
