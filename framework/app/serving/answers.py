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
    echoed: Sequence[int] | None = None
    """Tokens of the prompt, if they are echoed with log-probabilities."""
    prompt_only: bool = False
    """Whether nothing was to be generated. The engine generates one token, which is dropped."""
    prompt_logprobs: list[TokenLogprobs] | None = None
    """Those of the prompt's tokens from the second on, once they are there."""
    num_output: int = 0
    num_cached: int = 0
    finish_reason: str | None = None
    error: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    num_written: int = 0
    """Characters of the tokens that log-probabilities were written for."""
    first_s: float | None = None
    last_s: float = 0.0

    def take(self, news: Sequence[News]) -> str:
        """Take what came and return the new text. After a stop string the rest does not count."""
        for one in news:
            if one.prompt_logprobs is not None:
                self.prompt_logprobs = one.prompt_logprobs
            for place, token_id in enumerate(() if self.prompt_only else one.token_ids):
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
                if self.prompt_only and self.finish_reason == "stop":
                    self.finish_reason = "length"
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
    num_top: int = 0
    """How many of the most likely tokens to name beside each echoed one."""
    prompt_logprobs: int | None = None
    """How many to name beside each token of the prompt in a list of their own, as vLLM does; None for no list."""
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
            entry["logprobs"] = self._of_choice(choice, choice.logprobs)
            if self.prompt_logprobs is not None and not self.chat:
                entry["prompt_logprobs"] = self._of_prompt(choice)
            choices.append(entry)
        body = {**self._head("chat.completion" if self.chat else "text_completion"), "choices": choices}
        if self.prompt_logprobs is not None and self.chat:
            body["prompt_logprobs"] = self._of_prompt(self.choices[0])
        return body | {"usage": self.usage()}

    def chunk(self, choice: Choice, delta: str, logprobs: Sequence[TokenLogprobs], *, usage: bool) -> bytes:
        """One event of a stream. If the prompt is echoed with log-probabilities, the first event begins with it."""
        if choice.echoed is not None and not choice.num_written:
            delta = choice.prefix + delta
        entry: dict[str, Any] = {"index": choice.index}
        if self.chat:
            entry["delta"] = {"content": delta}
        else:
            entry["text"] = delta
        entry["logprobs"] = self._of_choice(choice, logprobs)
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

    def _of_choice(self, choice: Choice, entries: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
        """Those of `entries`. If the prompt is echoed with them, its own come first, once. None without any."""
        if self.chat:
            if not entries:
                return None
            return {
                "content": [
                    {**self._token(e.token_id, e.logprob), "top_logprobs": [self._token(*pair) for pair in e.top]}
                    for e in entries
                ]
            }
        all_entries: list[TokenLogprobs | None] = list(entries)
        tokens = [self._text(e.token_id) for e in entries]
        if choice.echoed is not None and not choice.num_written:
            all_entries = [None, *(choice.prompt_logprobs or ()), *entries]  # nothing comes before the first token
            tokens = [*map(self._text, choice.echoed), *tokens]
        if not tokens:
            return None
        offsets = []
        for token in tokens:
            offsets.append(choice.num_written)
            choice.num_written += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [None if e is None else e.logprob for e in all_entries],
            "top_logprobs": [None if e is None else self._top(e) for e in all_entries],
            "text_offset": offsets,
        }

    def _top(self, entry: TokenLogprobs) -> dict[str, float]:
        """The most likely tokens and, as OpenAI has it, the token itself. Of those with one text, the likeliest."""
        own_first = [(entry.token_id, entry.logprob), *reversed(entry.top[: self.num_top])]
        return {self._text(token): logprob for token, logprob in own_first}

    def _of_prompt(self, choice: Choice) -> list[dict[str, Any] | None]:
        """One entry per token of the prompt, in vLLM's form."""
        found: list[dict[str, Any] | None] = [None]
        for entry in choice.prompt_logprobs or ():
            ranked = [(*pair, rank) for rank, pair in enumerate(entry.top[: self.prompt_logprobs], 1)]
            found.append(
                {
                    str(token): {"logprob": logprob, "rank": rank, "decoded_token": self._text(token)}
                    for token, logprob, rank in [(entry.token_id, entry.logprob, entry.rank), *ranked]
                }
            )
        return found

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self._text(token_id)
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}

    def _text(self, token_id: int) -> str:
        return str(self.tokenizer.decode([token_id], skip_special_tokens=False))
