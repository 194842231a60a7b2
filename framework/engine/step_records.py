"""What the engine reports of each step: counts at the time of its plan, and events since the step before."""

from __future__ import annotations

from framework.engine.kv_cache import CacheCounters, KVCache
from framework.engine.plan import Plan, RequestQueue
from framework.interfaces.executor import StepBatch
from framework.interfaces.records import StepRecord


class StepRecords:
    """Makes a `StepRecord` of each sealed plan. The result of the step is filled in when it is delivered."""

    def __init__(self, queue: RequestQueue, cache: KVCache, plan: Plan) -> None:
        self._queue, self._cache, self._plan = queue, cache, plan
        self._reported, self._reported_preemptions = CacheCounters(), plan.num_preempted

    def of(self, batch: StepBatch) -> StepRecord:
        queue, cache, counters, before = self._queue, self._cache, self._cache.counters, self._reported
        unheld, num_preempted = cache.num_cached_unheld, self._plan.num_preempted
        record = StepRecord(
            step=batch.step,
            submit_s=queue.now_s,
            finish_s=0.0,
            plan_s=0.0,
            run_s=0.0,
            num_rows=len(batch.slots),
            num_prefill_tokens=batch.num_tokens - batch.num_decode_rows,
            num_decode_tokens=batch.num_decode_rows,
            num_padding_tokens=0,
            graph_key="",
            num_running=len(queue.running),
            num_waiting=len(queue.waiting),
            blocks_used=len(cache.blocks) - cache.num_free,
            blocks_cached=unheld,
            blocks_free=cache.num_free - unheld,
            evictions=counters.evictions - before.evictions,
            preemptions=num_preempted - self._reported_preemptions,
            cache_hit_blocks=counters.hit_blocks - before.hit_blocks,
            cache_lookup_blocks=counters.lookup_blocks - before.lookup_blocks,
        )
        self._reported = CacheCounters(counters.hit_blocks, counters.lookup_blocks, counters.evictions)
        self._reported_preemptions = num_preempted
        return record
