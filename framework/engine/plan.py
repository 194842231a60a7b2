"""The plan of one step: a transaction that a scheduler fills and the engine seals."""

from __future__ import annotations

from collections.abc import Callable

from framework.engine.kv_cache import KVCache
from framework.engine.livelock import LivelockGuard
from framework.engine.request import Request
from framework.engine.waiting import WaitingQueue
from framework.interfaces.cost_model import StepShape
from framework.interfaces.errors import PluginError
from framework.interfaces.executor import Admission, StepBatch
from framework.interfaces.scheduler import Verdict


class RequestQueue:
    """Every live request. `waiting` is in order of arrival with preempted requests in front, `running` in order of
    admission."""

    def __init__(self) -> None:
        self.waiting = WaitingQueue()
        self.running: list[Request] = []
        self.now_s = 0.0
        self.forecaster: Callable[[StepShape], float | None] | None = None

    def forecast(self, step: StepShape) -> float | None:
        if self.forecaster is None:
            raise PluginError("queue.forecast is for schedulers that set `asks_forecast = True` in their class")
        return self.forecaster(step)


class Slots:
    """The rows of the device-resident batch state that no running request owns."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))

    def take(self) -> int:
        return self._free.pop()

    def give(self, slot: int) -> None:
        self._free.append(slot)


class Plan:
    """Implements the `StepPlan` interface. One object serves every step: `begin`, the scheduler's calls, `seal`."""

    def __init__(self, queue: RequestQueue, cache: KVCache, *, max_num_batched_tokens: int, max_num_seqs: int) -> None:
        self._queue, self._cache = queue, cache
        self._budget_tokens, self._max_num_seqs = max_num_batched_tokens, max_num_seqs
        self.slots = Slots(max_num_seqs)
        self._livelock = LivelockGuard()
        self._serial = -1
        self.tokens_left = 0
        self.requests: list[Request] = []
        self.counts: list[int] = []
        self.num_preempted = 0
        """Since start"""

    @property
    def slots_left(self) -> int:
        return self._max_num_seqs - len(self._queue.running)

    @property
    def blocks_left(self) -> int:
        return self._cache.num_free

    @property
    def num_blocks(self) -> int:
        return len(self._cache.blocks)

    @property
    def block_size(self) -> int:
        return self._cache.block_size

    def begin(self) -> None:
        """Forget the last plan; the budgets are full again."""
        self._serial += 1
        self.tokens_left = self._budget_tokens
        self.requests, self.counts = [], []

    def add(self, request: Request, max_tokens: int | None = None) -> Verdict:
        if request.planned_in == self._serial:
            if request.running:
                raise PluginError(f"plan.add(request {request.id}): it is in this plan already; add a request once")
            return Verdict.NOT_READY  # preempted in this plan
        tokens_left = self.tokens_left
        if tokens_left == 0:
            return Verdict.NO_TOKENS
        if max_tokens is not None and max_tokens < tokens_left:
            if max_tokens < 1:
                raise PluginError(f"plan.add(request {request.id}, max_tokens={max_tokens}): must be at least 1")
            tokens_left = max_tokens
        if request.running:
            if request.num_tokens >= request.max_total_tokens:
                return Verdict.NOT_READY  # its last token is in flight
            start = request.num_computed
            num = request.num_tokens - start
            if num > tokens_left:
                num = tokens_left
            if start + num > request.memory.capacity_tokens and not self._cache.grow(request, start + num):
                return Verdict.NO_BLOCKS
        else:
            verdict, num = self._admit(request, tokens_left)
            if verdict is not Verdict.OK:
                return verdict
        request.planned_in = self._serial
        self.requests.append(request)
        self.counts.append(num)
        self.tokens_left -= num
        return Verdict.OK

    def _admit(self, request: Request, max_tokens: int) -> tuple[Verdict, int]:
        if request.finished:
            raise PluginError(f"plan.add(request {request.id}): it has ended ({request.finish_reason})")
        if request.num_inflight:
            return Verdict.NOT_READY, 0  # preempted; its last row is still on the device
        if len(self._queue.running) >= self._max_num_seqs:
            return Verdict.NO_SLOTS, 0
        num = self._cache.admit(request, max_tokens)
        if num == 0:
            return Verdict.NO_BLOCKS, 0
        queue = self._queue
        queue.waiting.remove(request)
        queue.running.append(request)
        request.running = True
        if request.scheduled_s is None:
            request.scheduled_s, request.num_cached_tokens = queue.now_s, request.num_computed
        return Verdict.OK, num

    def preempt(self, request: Request) -> None:
        if not request.running:
            raise PluginError(f"plan.preempt(request {request.id}): it is not running")
        self._livelock.preempted(request)
        if request.planned_in == self._serial:  # undo its row of this very plan
            index = next(i for i, planned in enumerate(self.requests) if planned is request)
            del self.requests[index]
            self.tokens_left += self.counts.pop(index)
        self.retire(request)
        request.planned_in = self._serial
        request.num_preemptions += 1
        self.num_preempted += 1
        self._queue.waiting.appendleft(request)

    def cached_tokens(self, request: Request) -> int:
        return 0 if request.running else len(self._cache.match(request)) * self._cache.block_size

    def cached_path(self, request: Request) -> list[int]:
        return [] if request.running else request.memory.hashes[: len(self._cache.match(request))]

    def blocks_needed(self, request: Request, num_tokens: int) -> int:
        return max(0, -(-num_tokens // self._cache.block_size) - len(request.memory.blocks))

    def retire(self, request: Request) -> None:
        """Take the slot and the blocks of a running request away."""
        self._cache.release(request)
        self._queue.running.remove(request)
        request.running = False
        if request.slot >= 0:
            self.slots.give(request.slot)
            request.slot = -1

    def seal(self, step: int) -> tuple[StepBatch, list[Request]]:
        """Freeze the plan: advance counters, publish prefix blocks, and say what the executor has to know.

        Returns the batch and its requests in row order, decode rows first.
        """
        requests, counts = self.requests, self.counts
        num_decode_rows = counts.count(1)
        if num_decode_rows != len(counts):
            order = sorted(range(len(counts)), key=lambda i: counts[i] > 1)  # stable
            requests, counts = [requests[i] for i in order], [counts[i] for i in order]
        batch = StepBatch(
            step=step,
            num_tokens=self._budget_tokens - self.tokens_left,
            num_decode_rows=num_decode_rows,
            row_tokens=counts,
        )
        slots, starts, samples = batch.slots, batch.starts, batch.samples
        to_commit, progressed = [], False
        for request, num in zip(requests, counts, strict=True):
            start = request.num_computed
            end = request.num_computed = start + num
            request.num_inflight += 1
            if request.slot < 0:
                request.slot = self.slots.take()
                batch.admissions.append(_admission(request))
            slots.append(request.slot)
            starts.append(start)
            sampled = end == request.num_tokens
            samples.append(sampled)
            if sampled:
                request.num_tokens, progressed = end + 1, True
            elif end > request.furthest_tokens:
                request.furthest_tokens, progressed = end, True
            memory = request.memory
            if len(memory.blocks) != memory.num_sent_blocks:
                new = memory.blocks[memory.num_sent_blocks :]
                batch.new_blocks.append((request.slot, memory.num_sent_blocks, [block.id for block in new]))
                memory.num_sent_blocks = len(memory.blocks)
            if end >= memory.commit_at_tokens:
                to_commit.append(request)
        for request in to_commit:
            self._cache.commit(request)
        if progressed:
            self._livelock.progressed()
        return batch, requests


def _admission(request: Request) -> Admission:
    return Admission(
        slot=request.slot,
        request_id=request.id,
        token_ids=request.token_ids[:],
        num_prompt=request.num_prompt,
        params=request.params,
        seed=request.seed,
        keys=request.keys,
    )
