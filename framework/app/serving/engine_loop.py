"""The engine's side of a server. It reads an inbox between steps and sends news after each step."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from framework.app.serving.wire import Abort, Accepted, Add, Draining, Link, News, Refused, Stats
from framework.engine.engine import Engine
from framework.interfaces.observer import Observer
from framework.interfaces.records import RequestRecord
from framework.interfaces.workload import TimedRequest
from framework.records.atomic import write_text

STATS_EVERY_S = 0.5
_UNSHARED = 1 << 61
"""Keys from here on belong to one request; those of shared blocks are below."""


class FrontGoneError(RuntimeError):
    """The HTTP process ended by itself."""


class EngineLoop:
    """Serves what arrives over `link` until it is told to drain.

    Args:
        max_waiting: how many requests may wait for their first step. Further ones are refused with status 429.
        observers: hear of every request and step, as in any run.
    """

    def __init__(self, engine: Engine, link: Link, observers: Sequence[Observer], *, max_waiting: int) -> None:
        self.engine, self.max_waiting = engine, max_waiting
        self.replay: dict[int, dict[str, Any]] = {}
        """Request id -> its line in the trace that repeats this session, without the output length."""
        self._link, self._observers = link, observers
        self._inbox: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._keys: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        self._draining = False
        self._num_refused = self._num_unshared = 0
        self._next_stats_s = 0.0
        self._counters = dict.fromkeys(("prompt_tokens", "output_tokens", "cached_tokens", "preemptions"), 0)
        self._ended: dict[str, int] = {}
        link.read(self._inbox.put, lambda: self._inbox.put(None))

    def drain(self) -> None:
        """Accept nothing further; `run` returns when every request has ended. Safe in a signal handler."""
        self._draining = True

    def run(self) -> None:
        """Serve until drained.

        Raises:
            FrontGoneError: the HTTP process ended first. Its requests have been aborted.
        """
        told = False
        for observer in self._observers:
            self.engine.observers.append(observer)
        try:
            while True:
                if self._draining and not told:
                    self._link.send(Draining())
                    told = True
                self._take(wait=not self.engine.has_work)
                if self.engine.has_work:
                    self._step()
                elif self._draining:
                    return
                if (now_s := time.monotonic()) >= self._next_stats_s:
                    self._next_stats_s = now_s + STATS_EVERY_S
                    self._link.send(Stats(self._stats()))
        finally:
            for observer in self._observers:
                self.engine.observers.remove(observer)

    def write_trace(self, path: Path) -> None:
        """Write the session as a trace: `workload=trace workload.path=...` sends it again."""
        lines = [json.dumps(line) for line in self.replay.values() if "output_tokens" in line]
        write_text(path, "".join(line + "\n" for line in lines))

    def _take(self, *, wait: bool) -> None:
        """Everything in the inbox; with `wait`, up to 50 ms for the first message."""
        try:
            batch = self._inbox.get(timeout=0.05) if wait else self._inbox.get_nowait()
            while True:
                if batch is None:
                    for request_id in list(self._keys):
                        self._abort(request_id)
                    raise FrontGoneError("the HTTP process ended; its last words are above")
                for message in batch:
                    self._serve(message)
                batch = self._inbox.get_nowait()
        except queue.Empty:
            pass

    def _serve(self, message: Any) -> None:
        if isinstance(message, Abort):
            if (request_id := self._ids.get(message.key)) is not None:
                self._abort(request_id)
            return
        assert isinstance(message, Add)
        if self._draining:
            self._link.send(Refused(message.key, 503, "the server is shutting down"))
            return
        if (waiting := len(self.engine.queue.waiting)) >= self.max_waiting:
            text = f"{waiting} requests wait already and serving.max_waiting={self.max_waiting}; try again later"
            self._refuse(message, 429, text)
            return
        spec = TimedRequest(
            prompt_token_ids=message.prompt_token_ids,
            params=message.params,
            arrival_s=self.engine.clock.now_s(),
            priority=message.priority,
            client=message.client,
            streams=True,
        )
        try:
            request_id = self.engine.add_request(spec)
        except ValueError as error:
            self._refuse(message, 400, str(error))
            return
        self._keys[request_id], self._ids[message.key] = message.key, request_id
        self._remember(request_id, spec)
        for observer in self._observers:
            observer.on_request(request_id, spec)
        self._link.send(Accepted(message.key))

    def _refuse(self, message: Add, status: int, text: str) -> None:
        self._num_refused += 1
        now_s = self.engine.clock.now_s()
        record = RequestRecord(
            request_id=-self._num_refused,
            client=message.client,
            arrival_s=now_s,
            scheduled_s=None,
            first_token_s=None,
            finish_s=now_s,
            num_prompt_tokens=len(message.prompt_token_ids),
            num_output_tokens=0,
            num_cached_tokens=0,
            num_preemptions=0,
            finish_reason="rejected",
            error=text,
        )
        for observer in self._observers:
            observer.on_reject(record, TimedRequest(prompt_token_ids=message.prompt_token_ids, params=message.params))
        self._link.send(Refused(message.key, status, text))

    def _step(self) -> None:
        try:
            self.engine.advance()
        except Exception:
            if not any(output.error for output in self.engine.outbox):
                raise  # it hit no request in particular: the session ends with it
        outputs = list(self.engine.outbox)
        self.engine.outbox.clear()
        for observer in self._observers:
            observer.on_outputs(outputs)
        if outputs:
            self._link.send(*[news for output in outputs if (news := self._news(output)) is not None])

    def _abort(self, request_id: int) -> None:
        output = self.engine.abort(request_id)
        if output is not None:
            for observer in self._observers:
                observer.on_outputs([output])
            self._news(output)  # nobody listens any more, but the request has ended

    def _news(self, output: Any) -> News | None:
        key = self._keys.get(output.request_id)
        if key is None:
            return None
        news = News(key, output.new_token_ids, output.finish_reason, output.new_logprobs)
        if not output.finished or output.record.num_output_tokens <= 1:  # else the first token brought them
            news.prompt_logprobs = output.prompt_logprobs
        if output.finished:
            record: RequestRecord = output.record
            del self._keys[output.request_id], self._ids[key]
            news.num_cached_tokens = record.num_cached_tokens
            news.error = record.error
            self._count(record)
        return news

    def _count(self, record: RequestRecord) -> None:
        counters = self._counters
        counters["prompt_tokens"] += record.num_prompt_tokens
        counters["output_tokens"] += record.num_output_tokens
        counters["cached_tokens"] += record.num_cached_tokens
        counters["preemptions"] += record.num_preemptions
        self._ended[record.finish_reason] = self._ended.get(record.finish_reason, 0) + 1
        line = self.replay[record.request_id]
        if record.num_output_tokens:
            line["output_tokens"] = record.num_output_tokens
        else:
            del self.replay[record.request_id]

    def _remember(self, request_id: int, spec: TimedRequest) -> None:
        """What the trace needs to know of a request: its shared prefix as one key per block."""
        request = self.engine.queue.waiting[-1]
        size, num_prompt = self.engine.config.block_size, request.num_prompt
        keys = [block % _UNSHARED for block in self.engine.cache.prompt_path(request)]
        missing = -(-num_prompt // size) - len(keys)
        keys += range(_UNSHARED + self._num_unshared, _UNSHARED + self._num_unshared + missing)
        self._num_unshared += missing
        line = {"time_s": spec.arrival_s, "prompt_tokens": num_prompt, "keys": keys, "key_tokens": size}
        self.replay[request_id] = line | ({"client": spec.client} if spec.client else {})

    def _stats(self) -> dict[str, Any]:
        cache, queues = self.engine.cache, self.engine.queue
        return {
            "running": len(queues.running),
            "waiting": len(queues.waiting),
            "kv_usage": 1 - cache.num_free / max(1, len(cache.blocks)),
            "evictions": cache.counters.evictions,
            "refused": self._num_refused,
            "ended": dict(self._ended),
            **self._counters,
        }
