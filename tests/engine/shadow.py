"""An executor without a model: a shadow KV memory that knows which prefix every slot must hold, on a virtual clock.

Its "model" is a function of (request, position), so what a request should produce is known whatever the schedule was.
"""

from __future__ import annotations

from collections import deque

from framework.engine.engine import Engine
from framework.engine.intake import Intake
from framework.engine.request import Request
from framework.execution.executor import Executor, StepBatch, StepResult
from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.scheduler import Scheduler

VOCAB = 50_000
EOS = VOCAB - 1


def token_at(request_id: int, position: int) -> int:
    return (request_id * 1_000_003 + position * 7919) % (VOCAB - 1)


class VirtualClock:
    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s

    def sleep_until(self, time_s: float) -> None:
        self.time_s = max(self.time_s, time_s)

    def restart(self) -> None:
        self.time_s = 0.0


class ShadowExecutor(Executor):
    """Steps run one after another on a virtual device; `eos_after[request_id]` outputs end with EOS."""

    def __init__(self, num_blocks: int, block_size: int, num_slots: int, eos_after: dict[int, int]) -> None:
        self.num_blocks, self.block_size, self.eos_after = num_blocks, block_size, eos_after
        self.clock = VirtualClock()
        self.memory: list[int | None] = [None] * (num_blocks * block_size)
        self.tokens: list[list[int]] = [[] for _ in range(num_slots)]
        self.tables: list[list[int]] = [[] for _ in range(num_slots)]
        self.owner: list[tuple[int, int]] = [(-1, 0)] * num_slots
        self.pending: deque[tuple[float, StepBatch]] = deque()
        self.device_free_s = 0.0
        self.num_rows = 0

    def submit(self, batch: StepBatch) -> None:
        assert batch.num_tokens == sum(batch.row_tokens) > 0
        assert all(n == 1 for n in batch.row_tokens[: batch.num_decode_rows])
        assert all(n > 1 for n in batch.row_tokens[batch.num_decode_rows :])
        assert len(set(batch.slots)) == len(batch.slots), "a slot runs twice in one step"
        begin_s = max(self.clock.now_s(), self.device_free_s)
        self.device_free_s = begin_s + 0.004 + 2e-5 * batch.num_tokens
        self.num_rows += len(batch.slots)
        self.pending.append((self.device_free_s, batch))

    def collect(self) -> StepResult:
        end_s, batch = self.pending.popleft()
        self.clock.sleep_until(end_s)
        for admission in batch.admissions:
            self.tokens[admission.slot] = list(admission.token_ids)
            self.tables[admission.slot] = []
            self.owner[admission.slot] = (admission.request_id, admission.num_prompt)
        for slot, first, ids in batch.new_blocks:
            assert len(self.tables[slot]) == first, "block table is not append-only"
            self.tables[slot].extend(ids)
        rows = list(zip(batch.slots, batch.starts, batch.row_tokens, batch.samples, strict=True))
        for slot, start, num, _ in rows:  # a layer writes all its keys before any row reads
            digests = self._digests(slot, start + num)
            for position in range(start, start + num):
                self.memory[self._address(slot, position)] = digests[position]
        sampled = []
        for slot, start, num, samples in rows:
            digests = self._digests(slot, start + num)
            for position in range(start + num):
                got = self.memory[self._address(slot, position)]
                assert got == digests[position], f"request {self.owner[slot][0]} reads wrong KV at {position}"
            if samples:
                sampled.append(self._sample(slot, start + num))
        return StepResult(step=batch.step, token_ids=sampled)

    def close(self) -> None:
        pass

    def _address(self, slot: int, position: int) -> int:
        return self.tables[slot][position // self.block_size] * self.block_size + position % self.block_size

    def _digests(self, slot: int, num: int) -> list[int]:
        out, digest = [], 0
        for token in self.tokens[slot][:num]:
            digest = hash((digest, token))
            out.append(digest)
        assert len(out) == num, "a token runs before it was sampled"
        return out

    def _sample(self, slot: int, position: int) -> int:
        request_id, num_prompt = self.owner[slot]
        last = position + 1 - num_prompt >= self.eos_after.get(request_id, 1 << 30)
        token = EOS if last else token_at(request_id, position)
        assert len(self.tokens[slot]) == position
        self.tokens[slot].append(token)
        return token


def make_engine(
    scheduler: Scheduler,
    eviction: EvictionPolicy,
    *,
    num_blocks: int = 64,
    block_size: int = 4,
    max_num_seqs: int = 8,
    max_num_batched_tokens: int = 64,
    overlap: int = 0,
    prefix_caching: bool = True,
    eos_after: dict[int, int] | None = None,
) -> Engine:
    executor = ShadowExecutor(num_blocks, block_size, max_num_seqs, eos_after or {})
    intake = Intake(vocab_size=VOCAB, max_model_len=num_blocks * block_size, eos_token_ids=(EOS,))
    return Engine(
        scheduler,
        eviction,
        executor,
        intake,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        overlap=overlap,
        prefix_caching=prefix_caching,
    )


def check_invariants(engine: Engine) -> None:
    """Everything that must hold of blocks, references, budgets and queues between any two calls."""
    cache, queue = engine.cache, engine.queue
    live: list[Request] = [*queue.running, *queue.waiting]
    assert len({request.id for request in live}) == len(live)
    refs = dict.fromkeys(range(len(cache.blocks)), 0)
    for request in live:
        assert request.running == (request in queue.running)
        assert request.running or not (request.blocks or request.pins or request.num_computed)
        assert len(request.blocks) * cache.block_size == request.capacity_tokens >= request.num_computed
        for block in [*request.blocks, *request.pins]:
            refs[block.id] += 1
    children = dict.fromkeys(range(len(cache.blocks)), 0)
    for digest, block in cache._cached.items():
        assert block.hash == digest
        if block.parent is not None:
            children[block.parent.id] += 1
            assert block.parent.hash is not None, "a cached block lost its parent"
            assert not block.ref or block.parent.ref, "a held child without a held parent"
    unheld = [block for block in cache.blocks if block.hash is not None and not block.ref]
    for block in cache.blocks:
        assert block.ref == refs[block.id], f"block {block.id}: {block.ref} references, {refs[block.id]} holders"
        assert block.children == children[block.id]
        assert block.hash is None or cache._cached[block.hash] is block
    assert len(unheld) == cache.num_cached_unheld
    assert len(cache._free) == sum(block.hash is None and not block.ref for block in cache.blocks), "a block is lost"
    assert len({id(block) for block in cache._free}) == len(cache._free), "a block is free twice"


def params(max_tokens: int, **more: object) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, **more)  # type: ignore[arg-type]
