"""The step loop: plan, submit, collect, deliver. It owns every request and knows no policy, device or model."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol, cast

from framework.engine.blame import blaming
from framework.engine.config import EngineConfig
from framework.engine.intake import Intake
from framework.engine.kv_cache import CacheCounters, KVCache
from framework.engine.output import RequestOutput
from framework.engine.plan import Plan, RequestQueue
from framework.engine.request import Request
from framework.interfaces.clock import Clock
from framework.interfaces.errors import StuckError
from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.executor import Executor, StepBatch, StepResult
from framework.interfaces.records import RequestRecord, StepRecord
from framework.interfaces.request import RequestSpec
from framework.interfaces.scheduler import Scheduler, StepPlan


class StepObserver(Protocol):
    def on_step(self, record: StepRecord) -> None: ...


@dataclass(slots=True)
class _Flight:
    """A submitted step."""

    batch: StepBatch
    requests: list[Request]
    record: StepRecord


class Engine:
    """Continuous batching over an executor."""

    def __init__(
        self,
        scheduler: Scheduler,
        eviction: EvictionPolicy,
        executor: Executor,
        intake: Intake,
        config: EngineConfig,
    ) -> None:
        self.scheduler, self.executor, self.intake, self.config = scheduler, executor, intake, config
        self.observers: list[StepObserver] = []
        self.queue = RequestQueue()
        self.cache = KVCache(executor.num_blocks, config.block_size, eviction, prefix_caching=config.prefix_caching)
        self.plan = Plan(
            self.queue,
            self.cache,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_num_seqs=config.max_num_seqs,
        )
        self._plan_view = cast(StepPlan, self.plan)  # a plugin passes back the very requests that the queue holds
        self._flights: deque[_Flight] = deque()
        self._live: dict[int, Request] = {}
        self._next_id = 0
        self._num_steps = 0
        self._recorded, self._recorded_preemptions = CacheCounters(), 0  # what records of steps hold so far
        overridden = type(scheduler).on_tokens is not Scheduler.on_tokens
        self._on_tokens = scheduler.on_tokens if overridden else None

    @property
    def clock(self) -> Clock:
        return self.executor.clock

    @property
    def has_work(self) -> bool:
        return bool(self.queue.running or self.queue.waiting or self._flights)

    def add_request(self, spec: RequestSpec) -> int:
        """Queue a request and return its id. Ids count up from 0 in the order of this call, refused ones included.

        Raises:
            ValueError: naming the value, the limit and the remedy; nothing else is disturbed.
        """
        request_id = self._next_id
        self._next_id += 1
        now_s = self.clock.now_s() if spec.arrival_s is None else spec.arrival_s
        request = self.intake.build(request_id, spec, arrival_s=now_s)
        self.enqueue(request)
        return request_id

    def enqueue(self, request: Request) -> None:
        """Queue what `Intake.build` made. Its id is unique among the requests of this engine."""
        self._live[request.id] = request
        self.queue.waiting.append(request)
        with blaming():
            self.scheduler.on_arrival(request)

    def abort(self, request_id: int) -> RequestOutput | None:
        """End a request now; None if it is unknown or has ended. A row in flight is computed and dropped."""
        request = self._live.get(request_id)
        if request is None:
            return None
        self.queue.now_s = self.cache.now_s = self.clock.now_s()
        with blaming():
            return self._finish(request, "abort", new_token_ids=[])

    def step(self) -> list[RequestOutput]:
        """Submit as many steps as `overlap` allows, then collect the oldest; returns what it brought.

        Raises:
            PluginError: if a plugin breaks a rule or raises; and whatever else the executor raises.
        """
        with blaming():
            return self._step()

    def _step(self) -> list[RequestOutput]:
        while len(self._flights) <= self.config.overlap and (self.queue.running or self.queue.waiting):
            if not self._submit():
                break
        if not self._flights:
            return []
        flight = self._flights.popleft()
        return self._deliver(flight, self.executor.collect())

    def reset(self) -> None:
        """Empty the prefix cache, restart clock, ids and step count: what warm-up did leaves no trace in a number."""
        assert not self.has_work
        with blaming():
            self.cache.reset()
        self._recorded = CacheCounters()
        self._num_steps = self._next_id = 0
        self.clock.restart()

    def close(self) -> None:
        self.executor.close()

    def _submit(self) -> bool:
        """Plan and submit one step; False if there is nothing to submit before something in flight returns."""
        while True:
            started = time.perf_counter()
            self.queue.now_s = self.cache.now_s = self.clock.now_s()
            num_preempted = self.plan.num_preempted
            self.plan.begin()
            self.scheduler.schedule(self.queue, self._plan_view)
            if self.plan.requests:
                break
            if self._flights:
                return False
            if self.plan.num_preempted == num_preempted:
                raise self._stuck()
            # Only preempted: plan again. That comes to an end, see `LivelockGuard`.
        batch, requests = self.plan.seal(self._num_steps)
        record = self._record(batch)
        self._num_steps += 1
        self._flights.append(_Flight(batch, requests, record))
        record.plan_s = time.perf_counter() - started
        self.executor.submit(batch)
        return True

    def _deliver(self, flight: _Flight, result: StepResult) -> list[RequestOutput]:
        now_s = self.queue.now_s = self.cache.now_s = self.clock.now_s()
        outputs: list[RequestOutput] = []
        token_ids, logprobs, failed, on_tokens = result.token_ids, result.logprobs, result.failed, self._on_tokens
        index = -1
        for request, sampled in zip(flight.requests, flight.batch.samples, strict=True):
            request.num_inflight -= 1
            if not sampled:
                continue
            index += 1
            if request.finish_reason is not None:
                continue  # it ended while this row was in flight
            if failed is not None and index in failed:
                outputs.append(self._finish(request, "failed", new_token_ids=[], error=failed[index]))
                continue
            token_id = token_ids[index]
            request.token_ids.append(token_id)
            request.token_times_s.append(now_s)
            num_tokens = request.num_known = request.num_known + 1
            if num_tokens >= request.commit_at_tokens and request.running:
                self.cache.commit(request)
            if logprobs is not None and (entry := logprobs[index]) is not None:
                request.logprobs.append(entry)
            if on_tokens is not None:
                on_tokens(request, 1)
            reason = None
            if token_id in request.stop_ids or (request.text is not None and request.text.push(token_id)):
                reason = "stop"
            elif num_tokens >= request.max_total_tokens:
                reason = "length"
            if reason is not None:
                outputs.append(self._finish(request, reason, new_token_ids=[token_id]))
            elif request.spec.streams:
                outputs.append(
                    RequestOutput(
                        request_id=request.id,
                        new_token_ids=[token_id],
                        new_logprobs=None if request.params.logprobs is None else request.logprobs[-1:],
                        text_delta="" if request.text is None else request.text.take_delta(),
                    )
                )
        record = flight.record
        record.finish_s, record.run_s = now_s, result.run_s
        record.graph_key, record.num_padding_tokens = result.graph_key, result.num_padding_tokens
        for observer in self.observers:
            observer.on_step(record)
        return outputs

    def _finish(
        self, request: Request, reason: str, *, new_token_ids: list[int], error: Exception | None = None
    ) -> RequestOutput:
        if request.running:
            self.plan.retire(request)
        else:
            self.queue.waiting.remove(request)
        request.finish_reason = reason
        del self._live[request.id]
        self.scheduler.on_finish(request)
        delta = text = ""
        if request.text is not None:
            request.text.finish()
            delta, text = request.text.take_delta(), request.text.text
        return RequestOutput(
            request_id=request.id,
            new_token_ids=new_token_ids,
            new_logprobs=request.logprobs[-1:] if new_token_ids and request.params.logprobs is not None else None,
            text_delta=delta if request.spec.streams else "",
            finished=True,
            finish_reason=reason,
            token_ids=request.output_ids,
            text=text,
            logprobs=request.logprobs if request.params.logprobs is not None else None,
            record=self._request_record(request, reason, "" if error is None else str(error)),
            error=error,
        )

    def _request_record(self, request: Request, reason: str, error: str) -> RequestRecord:
        return RequestRecord(
            request_id=request.id,
            client=request.spec.client,
            arrival_s=request.arrival_s,
            scheduled_s=request.scheduled_s,
            first_token_s=request.token_times_s[0] if request.token_times_s else None,
            finish_s=self.queue.now_s,
            num_prompt_tokens=request.num_prompt,
            num_output_tokens=request.num_output,
            num_cached_tokens=request.num_cached_tokens,
            num_preemptions=request.num_preemptions,
            finish_reason=reason,
            error=error,
            category=request.spec.category,
            deadline_s=request.spec.deadline_s,
            token_times_s=request.token_times_s,
        )

    def _record(self, batch: StepBatch) -> StepRecord:
        cache, counters, before = self.cache, self.cache.counters, self._recorded
        unheld = cache.num_cached_unheld
        record = StepRecord(
            step=batch.step,
            submit_s=self.queue.now_s,
            finish_s=0.0,
            plan_s=0.0,
            run_s=0.0,
            num_rows=len(batch.slots),
            num_prefill_tokens=batch.num_tokens - batch.num_decode_rows,
            num_decode_tokens=batch.num_decode_rows,
            num_padding_tokens=0,
            graph_key="",
            num_running=len(self.queue.running),
            num_waiting=len(self.queue.waiting),
            blocks_used=len(cache.blocks) - cache.num_free,
            blocks_cached=unheld,
            blocks_free=cache.num_free - unheld,
            evictions=counters.evictions - before.evictions,
            preemptions=self.plan.num_preempted - self._recorded_preemptions,
            cache_hit_blocks=counters.hit_blocks - before.hit_blocks,
            cache_lookup_blocks=counters.lookup_blocks - before.lookup_blocks,
        )
        self._recorded = CacheCounters(counters.hit_blocks, counters.lookup_blocks, counters.evictions)
        self._recorded_preemptions = self.plan.num_preempted
        return record

    def _stuck(self) -> StuckError:
        return StuckError(
            f"scheduler {type(self.scheduler).__name__} planned nothing although nothing is in flight: "
            f"{len(self.queue.running)} requests running, {len(self.queue.waiting)} waiting, {self.cache.num_free} of "
            f"{len(self.cache.blocks)} blocks free or evictable, budget {self.plan.tokens_left} tokens. With work "
            f"waiting, a plan must add a request or preempt one"
        )
