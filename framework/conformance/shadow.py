"""An executor without a model: a shadow KV memory that knows which prefix every slot must hold, on a virtual clock.

Its "model" is a function of (request, position), so what a request should produce is known whatever the schedule was.
"""

from __future__ import annotations

from collections import deque

from framework.engine.engine import Engine
from framework.engine.intake import Intake
from framework.execution.executor import Executor, StepBatch, StepResult
from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.scheduler import Scheduler

VOCAB = 50_000
EOS = VOCAB - 1


def token_at(request_id: int, position: int) -> int:
    """What the shadow model samples for a request at a position; never EOS."""
    return (request_id * 1_000_003 + position * 7919) % (VOCAB - 1)


class VirtualClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s

    def sleep_until(self, time_s: float) -> None:
        self.time_s = max(self.time_s, time_s)

    def restart(self) -> None:
        self.time_s = 0.0


class ShadowExecutor(Executor):
    """Steps run one after another on a virtual device.

    Args:
        num_slots: requests that can run at once.
        eos_after: request id -> the number of its output token that is EOS; others never sample it.

    Raises:
        AssertionError: in `submit` and `collect`, for a malformed step or a position read that holds a wrong prefix.
    """

    def __init__(self, num_blocks: int, block_size: int, num_slots: int, eos_after: dict[int, int]) -> None:
        self.num_blocks, self.block_size, self.eos_after = num_blocks, block_size, eos_after
        self.clock = VirtualClock()
        self.memory: list[int | None] = [None] * (num_blocks * block_size)
        self.tokens: list[list[int]] = [[] for _ in range(num_slots)]
        self.tables: list[list[int]] = [[] for _ in range(num_slots)]
        self._digests_of: list[list[int]] = [[] for _ in range(num_slots)]
        self.owner: list[tuple[int, int]] = [(-1, 0)] * num_slots
        self.pending: deque[tuple[float, StepBatch]] = deque()
        self.device_free_s = 0.0
        self.num_rows = 0
        self.steps: list[dict[int, int]] = []
        """For each submitted step the tokens of each request in it."""
        self._submitted_owner = [-1] * num_slots

    def submit(self, batch: StepBatch) -> None:
        assert batch.num_tokens == sum(batch.row_tokens) > 0, f"{batch.num_tokens} tokens planned: {batch.row_tokens}"
        assert all(n == 1 for n in batch.row_tokens[: batch.num_decode_rows])
        assert all(n > 1 for n in batch.row_tokens[batch.num_decode_rows :])
        assert len(set(batch.slots)) == len(batch.slots), "a slot runs twice in one step"
        begin_s = max(self.clock.now_s(), self.device_free_s)
        self.device_free_s = begin_s + 0.004 + 2e-5 * batch.num_tokens
        self.num_rows += len(batch.slots)
        for admission in batch.admissions:
            self._submitted_owner[admission.slot] = admission.request_id
        rows = zip(batch.slots, batch.row_tokens, strict=True)
        self.steps.append({self._submitted_owner[slot]: num for slot, num in rows})
        self.pending.append((self.device_free_s, batch))

    def collect(self) -> StepResult:
        end_s, batch = self.pending.popleft()
        self.clock.sleep_until(end_s)
        for admission in batch.admissions:
            self.tokens[admission.slot] = list(admission.token_ids)
            self.tables[admission.slot] = []
            self._digests_of[admission.slot] = []
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
            self._check_reads(slot, start + num)
            if samples:
                sampled.append(self._sample(slot, start + num))
        return StepResult(step=batch.step, token_ids=sampled)

    def close(self) -> None:
        pass

    def _address(self, slot: int, position: int) -> int:
        return self.tables[slot][position // self.block_size] * self.block_size + position % self.block_size

    def _check_reads(self, slot: int, num: int) -> None:
        digests, size = self._digests(slot, num), self.block_size
        for start in range(0, num, size):
            want = digests[start : min(start + size, num)]
            address = self._address(slot, start)
            if self.memory[address : address + len(want)] != want:
                wrong = next(i for i in range(len(want)) if self.memory[address + i] != want[i])
                raise AssertionError(f"request {self.owner[slot][0]} reads wrong KV at {start + wrong}")

    def _digests(self, slot: int, num: int) -> list[int]:
        """What each position up to `num`, at least, must hold: a hash over all tokens up to it."""
        digests, tokens = self._digests_of[slot], self.tokens[slot]
        assert len(tokens) >= num, "a token runs before it was sampled"
        for position in range(len(digests), num):
            digests.append(hash((digests[-1] if digests else 0, tokens[position])))
        return digests

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
    """The real engine over a `ShadowExecutor`."""
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
