"""Answers to clients in OpenAI's form: choices, chunks of a stream, log-probabilities and usage."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from framework.app.serving.client import Call
from framework.app.serving.wire import News
from framework.engine.output import TextTracker
from framework.interfaces.executor import TokenLogprobs


@dataclass(slots=True)
class Choice:
    """One output of one prompt, as far as it has been generated."""

    index: int
    call: Call
    tracker: TextTracker
    num_prompt: int
    """Tokens of the prompt. It is 0 for a further choice of the same prompt, which is counted once."""
    prefix: str = ""
    """Text of the prompt, if it is echoed."""
    num_output: int = 0
    num_cached: int = 0
    finish_reason: str | None = None
    error: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    first_s: float | None = None
    last_s: float = 0.0

    def take(self, news: Sequence[News]) -> str:
        """Take what came and return the new text. After a stop string the rest does not count."""
        for one in news:
            for place, token_id in enumerate(one.token_ids):
                self.num_output += 1
                if one.logprobs is not None:
                    self.logprobs.append(one.logprobs[place])
                if one.finish_reason == "stop" and place == len(one.token_ids) - 1:
                    self.tracker.push_last(token_id)  # the engine knows of stop tokens alone
                elif self.tracker.push(token_id):
                    self.finish_reason = "stop"
                    break
            if self.finish_reason is None and one.finish_reason is not None:
                self.finish_reason, self.error = one.finish_reason, one.error
                self.num_cached = one.num_cached_tokens
            if self.finish_reason is not None:
                self.tracker.finish()
                break
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        return self.tracker.take_delta()


@dataclass(slots=True)
class Answer:
    """The choices of one HTTP request, and how to write them down."""

    chat: bool
    model: str
    choices: list[Choice]
    tokenizer: Any
    id: str = ""
    created: int = 0

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + uuid.uuid4().hex
        self.created = int(time.time())

    def whole(self) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        choices = []
        for choice in self.choices:
            entry: dict[str, Any] = {"index": choice.index, "finish_reason": choice.finish_reason}
            text = choice.prefix + choice.tracker.text
            if self.chat:
                entry["message"] = {"role": "assistant", "content": text}
            else:
                entry["text"] = text
            entry["logprobs"] = self._logprobs(choice.logprobs) if choice.logprobs else None
            choices.append(entry)
        return {
            **self._head("chat.completion" if self.chat else "text_completion"),
            "choices": choices,
            "usage": self.usage(),
        }

    def chunk(self, choice: Choice, delta: str, logprobs: Sequence[TokenLogprobs], *, usage: bool) -> bytes:
        """One event of a stream."""
        entry: dict[str, Any] = {"index": choice.index}
        if self.chat:
            entry["delta"] = {"content": delta}
        else:
            entry["text"] = delta
        entry["logprobs"] = self._logprobs(logprobs) if logprobs else None
        entry["finish_reason"] = choice.finish_reason
        return self._event([entry], self.usage() if usage else None)

    def opening(self, choice: Choice) -> bytes:
        """The first event of a chat choice, which names the role."""
        entry = {"index": choice.index, "delta": {"role": "assistant", "content": ""}, "logprobs": None}
        return self._event([{**entry, "finish_reason": None}], None)

    def closing(self, *, usage: bool) -> bytes:
        """The end of a stream, after the usage of the whole if it was asked for."""
        return (self._event([], self.usage()) if usage else b"") + b"data: [DONE]\n\n"

    def usage(self) -> dict[str, Any]:
        """Tokens in and out. The prompt counts once, however many choices it has."""
        num_prompt = sum(choice.num_prompt for choice in self.choices)
        num_output = sum(choice.num_output for choice in self.choices)
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_output,
            "total_tokens": num_prompt + num_output,
            "prompt_tokens_details": {"cached_tokens": sum(choice.num_cached for choice in self.choices)},
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _event(self, choices: list[Any], usage: dict[str, Any] | None) -> bytes:
        event = {**self._head("chat.completion.chunk" if self.chat else "text_completion"), "choices": choices}
        if usage is not None:
            event["usage"] = usage
        return b"data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"

    def _logprobs(self, entries: Sequence[TokenLogprobs]) -> dict[str, Any]:
        if self.chat:
            return {
                "content": [
                    {**self._token(e.token_id, e.logprob), "top_logprobs": [self._token(*pair) for pair in e.top]}
                    for e in entries
                ]
            }
        tokens = [self._text(e.token_id) for e in entries]
        offsets, at = [], 0
        for token in tokens:
            offsets.append(at)
            at += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [e.logprob for e in entries],
            "top_logprobs": [{self._text(token): logprob for token, logprob in e.top} for e in entries],
            "text_offset": offsets,
        }

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self._text(token_id)
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}

    def _text(self, token_id: int) -> str:
        return str(self.tokenizer.decode([token_id], skip_special_tokens=False))
