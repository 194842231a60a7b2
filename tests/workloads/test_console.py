"""Printed answers: order, no mixing, no control codes."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from framework.interfaces.workload import TimedRequest
from framework.workloads.console import AnswerPrinter


@dataclass
class News:
    request_id: int
    text_delta: str
    finish_reason: str | None = None
    new_token_ids: list[int] = field(default_factory=list)
    record: None = None
    token_ids: list[int] = field(default_factory=list)
    text: str = ""

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printer(stream: io.StringIO, *labels: str) -> AnswerPrinter:
    result = AnswerPrinter(stream)
    for i, label in enumerate(labels):
        result.on_request(i, TimedRequest(label=label))
    return result


def test_oldest_streams_and_the_others_wait_for_their_turn() -> None:
    stream = io.StringIO()
    answers = printer(stream, "p0", "p1", "p2")
    answers.on_outputs([News(0, "a"), News(1, "b"), News(2, "c")])
    assert stream.getvalue() == "> p0\na"
    answers.on_outputs([News(0, "A"), News(1, "B", "stop"), News(2, "C")])
    assert stream.getvalue() == "> p0\naA"
    answers.on_outputs([News(0, "", "length"), News(2, "!")])
    assert stream.getvalue() == "> p0\naA [...]\n\n> p1\nbB\n\n> p2\ncC!"
    answers.on_outputs([News(2, "", "stop")])
    assert stream.getvalue().endswith("cC!\n\n")


def test_close_prints_what_was_held_back() -> None:
    stream = io.StringIO()
    answers = printer(stream, "p0", "p1")
    answers.on_outputs([News(0, "a"), News(1, "b")])
    answers.close()
    assert stream.getvalue() == "> p0\na [interrupted]\n\n> p1\nb [interrupted]\n\n"


def test_no_control_codes_in_a_pipe_nor_from_the_model() -> None:
    for stream in (io.StringIO(), Terminal()):
        answers = printer(stream, "p\033[2J")
        answers.on_outputs([News(0, "x\033[31m\r\ty\x9b\n", "stop")])
        text = stream.getvalue().replace("\033[1m", "").replace("\033[0m", "")
        assert text == "> p\ufffd[2J\nx\ufffd[31m\ufffd\ty\ufffd\n\n\n"
    assert "\033[1m" in stream.getvalue()


def test_a_pipe_in_ascii_gets_question_marks_not_an_error() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    answers = AnswerPrinter(stream)
    answers.on_request(0, TimedRequest(label="é"))
    answers.on_outputs([News(0, "ü\n", "stop")])
    assert raw.getvalue() == b"> ?\n?\n\n\n"
