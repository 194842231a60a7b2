"""The step loop: plan, submit, collect, deliver. It owns every request and knows no policy, device or model."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from framework.engine.blame import blaming
from framework.engine.config import EngineConfig
from framework.engine.ending import FAILED, OWN_END, failed_output, last_output, next_output
from framework.engine.hidden_lengths import HiddenLengths
from framework.engine.intake import Intake
from framework.engine.kv_cache import KVCache
from framework.engine.output import RequestOutput
from framework.engine.plan import Plan, RequestQueue
from framework.engine.prediction import Prediction
from framework.engine.request import Request
from framework.engine.step_records import StepRecords
from framework.interfaces.clock import Clock
from framework.interfaces.errors import EngineEndedError, RequestCutOffError, StuckError
from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.executor import Executor, StepBatch, StepResult
from framework.interfaces.policies import Policies
from framework.interfaces.predictor import Predictor
from framework.interfaces.records import StepRecord
from framework.interfaces.request import RequestSpec
from framework.interfaces.scheduler import Scheduler, StepPlan
from framework.toolkit.step_forecast import StepForecast


class StepObserver(Protocol):
    def on_step(self, record: StepRecord) -> None: ...


@dataclass(slots=True)
class _Flight:
    """A submitted step."""

    batch: StepBatch
    requests: list[Request]
    record: StepRecord


class Engine:
    """Continuous batching over an executor.

    A call that raises leaves nothing half done. Steps in flight are dropped, and the prefix cache is emptied, since it
    may hold blocks that they were to write. If the executor failed a step, the requests in it end as failed. All others
    wait again and go on from the tokens that they have. `renew` makes new policies for that, because an error may have
    struck in the middle of the old ones. Without it, or if the executor cannot go on, the engine ends.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        eviction: EvictionPolicy,
        executor: Executor,
        intake: Intake,
        config: EngineConfig,
        *,
        predictor: Predictor | None = None,
        renew: Callable[[], Policies] | None = None,
    ) -> None:
        self.executor, self.intake, self.config, self._renew = executor, intake, config, renew
        self.observers: list[StepObserver] = []
        self.outbox: deque[RequestOutput] = deque()
        """Outputs that `advance` brought and `step` has not returned, the oldest first."""
        self._live: dict[int, Request] = {}
        self._hidden = HiddenLengths()
        self._next_id = 0
        self._num_steps = 0
        self._is_open = False
        """Whether a call has begun and has neither ended nor been recovered from."""
        self._cause: BaseException | None = None
        """The exception that is being recovered from."""
        self._ended_by: BaseException | None = None
        self._at_risk: Sequence[Request] = ()
        """Requests of the step that the executor is working on."""
        self._touched: Request | None = None
        """The request whose tokens are being changed."""
        self._start(Policies(scheduler, eviction, predictor))

    def _start(self, policies: Policies) -> None:
        """Empty queues, cache and plan."""
        scheduler, eviction, self.predictor = policies
        self.scheduler = scheduler
        self.queue = RequestQueue()
        config = self.config
        self.cache = KVCache(
            self.executor.num_blocks, config.block_size, eviction, prefix_caching=config.prefix_caching
        )
        self.plan = Plan(
            self.queue,
            self.cache,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_num_seqs=config.max_num_seqs,
        )
        self._plan_view = cast(StepPlan, self.plan)  # a plugin passes back the very requests that the queue holds
        self._flights: deque[_Flight] = deque()
        self._hidden.restart()
        self._records = StepRecords(self.queue, self.cache, self.plan)
        kind = type(scheduler)
        self._on_tokens = scheduler.on_tokens if kind.on_tokens is not Scheduler.on_tokens else None
        self._on_step = scheduler.on_step if kind.on_step is not Scheduler.on_step else None
        self._forecast: StepForecast | None = None
        if scheduler.asks_forecast:
            self.queue.forecaster = self.executor.forecaster(config.overlap)
            if self.queue.forecaster is None:
                self._forecast = StepForecast()
                self.queue.forecaster = self._forecast.seconds

    @property
    def clock(self) -> Clock:
        return self.executor.clock

    @property
    def has_work(self) -> bool:
        return bool(self.queue.running or self.queue.waiting or self._flights or self.outbox)

    @property
    def next_id(self) -> int:
        """The id that the next `add_request` will return."""
        return self._next_id

    def add_request(self, spec: RequestSpec) -> int:
        """Queue a request and return its id. Ids count up from 0 in the order of this call, refused ones included.

        Raises:
            ValueError: naming the value, the limit and the remedy; nothing else is disturbed.
            EngineEndedError: an earlier call failed for good.
        """
        request_id = self._next_id
        self._next_id += 1
        now_s = self.clock.now_s() if spec.arrival_s is None else spec.arrival_s
        request = self.intake.build(request_id, spec, arrival_s=now_s)
        self.enqueue(request, spec.output_tokens)
        return request_id

    def enqueue(self, request: Request, output_tokens: int | None = None) -> None:
        """Queue what `Intake.build` made, to end after `output_tokens` (None: at its stated limit). Its id is unique
        among the requests of this engine."""
        self._begin()
        try:
            self._live[request.id] = request
            self._hidden.add(request, output_tokens)
            self.queue.waiting.append(request)
            self._tell_arrival(request)
        except BaseException as error:
            self._live.pop(request.id, None)  # the caller never learns its id
            self._hidden.forget(request)
            self._recover(error)
            raise
        self._is_open = False

    def abort(self, request_id: int) -> RequestOutput | None:
        """End a request now; None if it is unknown or has ended. A row in flight is computed and dropped.

        If it has ended in a call that raised, this is its last output, unless that was taken.
        """
        if self._is_open:
            self._recover(None)
        request = self._live.get(request_id)
        if request is None:
            return self._take_last(request_id)
        self._begin()
        try:
            self._touched = request
            self.queue.now_s = self.cache.now_s = self.clock.now_s()
            with blaming():
                output = self._finish(request, "abort", new_token_ids=[])
        except BaseException as error:
            self._recover(error)
            raise
        self._touched, self._is_open = None, False
        return output

    def step(self) -> list[RequestOutput]:
        """Submit as many steps as `overlap` allows, then collect the oldest and return what it brought.

        Raises:
            PluginError: a plugin broke a rule or raised. Whatever else the executor raises is passed on.
            EngineEndedError: an earlier call failed for good.
        """
        if not self.outbox:  # what a call that raised had brought comes first
            self.advance()
        outputs = list(self.outbox)
        self.outbox.clear()
        return outputs

    def advance(self) -> None:
        """Like `step`, but the outputs stay in `outbox`, where an interrupt of the caller cannot lose them."""
        self._begin()
        try:
            with blaming():
                self._step()
        except BaseException as error:
            self._recover(error)
            raise
        self._is_open = False

    def _begin(self) -> None:
        if self._is_open:  # an interrupt struck while the last call recovered from another one
            self._recover(None)
        if self._ended_by is not None:
            cause = f"{type(self._ended_by).__name__}: {self._ended_by}".removesuffix(": ")
            raise EngineEndedError(f"this engine ended with {cause}; build another one") from self._ended_by
        self._is_open = True

    def _step(self) -> None:
        while len(self._flights) <= self.config.overlap and (self.queue.running or self.queue.waiting):
            if not self._submit():
                break
        if not self._flights:
            return
        flight = self._flights[0]
        self._at_risk = flight.requests
        result = self.executor.collect()
        self._at_risk = ()
        self._flights.popleft()
        self._deliver(flight, result)

    def _recover(self, error: BaseException | None) -> None:
        """Make the engine sound again after a call that raised. Starts afresh if it is interrupted itself."""
        cause = self._cause = self._cause or error
        fatal: BaseException | None = cause or RequestCutOffError("an interrupt")
        if self._renew is not None:
            try:
                self.executor.discard()
                self._start(self._renew())
                self._sort_requests(cause)
                fatal = None
            except Exception as another:  # noqa: BLE001 (every later call raises it)
                fatal = another
        if fatal is not None:
            self._start(Policies(self.scheduler, self.cache.policy, self.predictor))
            self._sort_requests(cause, fatal)
            self._ended_by = fatal
        self._at_risk, self._touched, self._cause, self._is_open = (), None, None, False

    def _sort_requests(self, cause: BaseException | None, fatal: BaseException | None = None) -> None:
        """End the requests that `cause` hit, or all of them if it is `fatal`. The others wait again."""
        failed = set(self._at_risk) if isinstance(cause, Exception) else set()
        if self._touched is not None:
            failed.add(self._touched)
            self._live[self._touched.id] = self._touched
        told = {output.request_id for output in self.outbox if output.finished}
        for request in list(self._live.values()):
            if request.id in told:
                del self._live[request.id]
                self._hidden.forget(request)
            elif fatal is not None or request in failed:
                request.finish_reason = FAILED
                error = next((one for one in (cause, fatal) if isinstance(one, Exception)), None) or RequestCutOffError(
                    f"request {request.id} was cut off in the middle of a step by {type(cause).__name__}; ask again"
                )
                self.outbox.append(failed_output(request, error, self.clock.now_s()))
                del self._live[request.id]
                self._hidden.forget(request)
            else:
                request.restart()
                self.queue.waiting.append(request)
                self._tell_arrival(request)

    def _tell_arrival(self, request: Request) -> None:
        with blaming():
            if self.predictor is not None:
                if self.predictor.oracle:
                    self.predictor.on_true_length(request, self._hidden.output_tokens(request))
                request.prediction = Prediction(self.predictor, request)
            self.scheduler.on_arrival(request)

    def reset(self) -> None:
        """Empty the prefix cache and restart clock, ids and step count, so that no metric contains the warm-up."""
        assert not self.has_work
        with blaming():
            self.cache.reset()
        self._records = StepRecords(self.queue, self.cache, self.plan)
        self._num_steps = self._next_id = 0
        self._hidden = HiddenLengths()
        self.clock.restart()

    def close(self) -> None:
        self.executor.close()

    def _submit(self) -> bool:
        """Plan and submit one step. False if there is nothing to submit until a step in flight returns."""
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
            # The plan only preempted, so plan again. `LivelockGuard` sees to it that this ends.
        batch, requests = self.plan.seal(self._num_steps)
        self._hidden.submitted(batch.step, batch.admissions, self._live)
        record = self._records.of(batch)
        self._num_steps += 1
        self._flights.append(_Flight(batch, requests, record))
        record.plan_s = time.perf_counter() - started
        if self._forecast is not None:
            self._forecast.submitted(batch)
        self._at_risk = requests
        self.executor.submit(batch)
        self._at_risk = ()
        return True

    def _deliver(self, flight: _Flight, result: StepResult) -> None:
        now_s = self.queue.now_s = self.cache.now_s = self.clock.now_s()
        outputs = self.outbox
        for row, (first, entries) in (result.prompt_logprobs or {}).items():
            flight.requests[row].take_prompt_logprobs(first, entries)
        token_ids, logprobs, failed, on_tokens = result.token_ids, result.logprobs, result.failed, self._on_tokens
        index = -1
        for request, sampled in zip(flight.requests, flight.batch.samples, strict=True):
            request.num_inflight -= 1
            if not sampled:
                continue
            index += 1
            if request.finish_reason is not None:
                continue  # it ended while this row was in flight
            self._touched = request
            if failed is not None and index in failed:
                outputs.append(self._finish(request, FAILED, new_token_ids=[], error=failed[index]))
                continue
            token_id = token_ids[index]
            request.token_ids.append(token_id)
            request.token_times_s.append(now_s)
            num_tokens = request.num_known = request.num_known + 1
            if num_tokens >= request.memory.commit_at_tokens and request.running:
                self.cache.commit(request)
            if logprobs is not None and (entry := logprobs[index]) is not None:
                request.logprobs.append(entry)
            if on_tokens is not None:
                on_tokens(request, 1)
            reason = None
            if token_id in request.stop_ids and num_tokens >= request.min_total_tokens:
                reason = "stop"
                if request.text is not None:
                    request.text.push_last(token_id)
            elif request.text is not None and request.text.push(token_id):
                reason = "stop"
            elif num_tokens >= request.max_total_tokens:
                reason = "length"
            if reason is not None:
                outputs.append(self._finish(request, reason, new_token_ids=[token_id]))
            elif request.spec.streams:
                outputs.append(next_output(request, token_id))
        self._touched = None
        record = flight.record
        record.finish_s, record.run_s = now_s, result.run_s
        record.graph_key, record.num_padding_tokens = result.graph_key, result.num_padding_tokens
        if self._forecast is not None:
            self._forecast.ended(record)
        if self._on_step is not None:
            self._on_step(record)
        for observer in self.observers:
            observer.on_step(record)

    def _take_last(self, request_id: int) -> RequestOutput | None:
        last = next((one for one in self.outbox if one.request_id == request_id and one.finished), None)
        if last is not None:
            self.outbox.remove(last)
        return last

    def _finish(
        self, request: Request, reason: str, *, new_token_ids: list[int], error: Exception | None = None
    ) -> RequestOutput:
        if request.running:
            self.plan.retire(request)
        else:
            self.queue.waiting.remove(request)
        request.finish_reason = reason
        del self._live[request.id]
        self._hidden.forget(request)
        self.scheduler.on_finish(request)
        if self.predictor is not None and reason in OWN_END:
            self.predictor.on_finish(request)
        return last_output(request, reason, self.queue.now_s, new_token_ids=new_token_ids, error=error)

    def _stuck(self) -> StuckError:
        return StuckError(
            f"scheduler {type(self.scheduler).__name__} planned nothing although nothing is in flight: "
            f"{len(self.queue.running)} requests running, {len(self.queue.waiting)} waiting, {self.cache.num_free} of "
            f"{len(self.cache.blocks)} blocks free or evictable, budget {self.plan.tokens_left} tokens. With work "
            f"waiting, a plan must add a request or preempt one"
        )
