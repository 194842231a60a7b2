"""An executor without a model: the shadow KV memory that knows which prefix every slot must hold, on a virtual clock.

Its "model" is a function of (request, position), so what a request should produce is known whatever the schedule was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from framework.engine.config import EngineConfig
from framework.engine.engine import Engine
from framework.engine.intake import Intake
from framework.interfaces.clock import VirtualClock
from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.executor import Executor, StepBatch, StepResult
from framework.interfaces.policies import Policies
from framework.interfaces.predictor import Predictor
from framework.interfaces.scheduler import Scheduler
from framework.registry import PREDICTORS
from framework.simulation.shadow_memory import ShadowMemory

__all__ = ["EOS", "VOCAB", "ShadowExecutor", "VirtualClock", "learning_predictor", "make_engine", "token_at"]

VOCAB = 50_000
EOS = VOCAB - 1


def token_at(request_id: int, position: int) -> int:
    """The token that the shadow model samples for a request at a position; never EOS."""
    return (request_id * 1_000_003 + position * 7919) % (VOCAB - 1)


class ShadowExecutor(Executor):
    """Steps run one after another on a virtual device.

    Args:
        num_slots: requests that can run at once.
        eos_after: request id -> the number of its output token that is EOS; others never sample it.
        voices: request id -> the id that stands for it in `token_at`, where it is another one's repetition.

    Raises:
        AssertionError: in `submit` and `collect`, for a malformed step or a position read that holds a wrong prefix.
    """

    def __init__(
        self, num_blocks: int, block_size: int, num_slots: int, eos_after: dict[int, int], voices: dict[int, int]
    ) -> None:
        self.num_blocks, self.eos_after, self.voices = num_blocks, eos_after, voices
        self.clock = VirtualClock()
        self.memory = ShadowMemory(num_blocks, block_size, num_slots)
        self.owner: list[tuple[int, int]] = [(-1, 0)] * num_slots
        self.pending: deque[tuple[float, StepBatch]] = deque()
        self.device_free_s = 0.0
        self.steps: list[dict[int, int]] = []
        """For each submitted step, the tokens of each request in it."""
        self._submitted_owner = [-1] * num_slots

    def submit(self, batch: StepBatch) -> None:
        self.memory.check(batch)
        begin_s = max(self.clock.now_s(), self.device_free_s)
        self.device_free_s = begin_s + 0.004 + 2e-5 * batch.num_tokens
        for admission in batch.admissions:
            self._submitted_owner[admission.slot] = admission.request_id
        rows = zip(batch.slots, batch.row_tokens, strict=True)
        self.steps.append({self._submitted_owner[slot]: num for slot, num in rows})
        self.pending.append((self.device_free_s, batch))

    def collect(self) -> StepResult:
        end_s, batch = self.pending.popleft()
        self.clock.sleep_until(end_s)
        for admission in batch.admissions:
            self.owner[admission.slot] = (admission.request_id, admission.num_prompt)
        self.memory.run(batch)
        rows = zip(batch.slots, batch.starts, batch.row_tokens, batch.samples, strict=True)
        sampled = [self._sample(slot, start + num) for slot, start, num, samples in rows if samples]
        return StepResult(step=batch.step, token_ids=sampled)

    def discard(self) -> None:
        self.pending.clear()

    def close(self) -> None:
        pass

    def _sample(self, slot: int, position: int) -> int:
        request_id, num_prompt = self.owner[slot]
        last = position + 1 - num_prompt >= self.eos_after.get(request_id, 1 << 30)
        token = EOS if last else token_at(self.voices.get(request_id, request_id), position)
        self.memory.sampled(slot, position, token)
        return token


def learning_predictor() -> Predictor:
    """What a scheduler under test may read as `request.predicted`: lengths learned from the trace that it serves."""
    predictor: Predictor = PREDICTORS.build({"name": "histogram", "least": 2})
    return predictor


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
    voices: dict[int, int] | None = None,
    predictor: Predictor | None = None,
    renew: Callable[[], Policies] | None = None,
    make_executor: type[ShadowExecutor] = ShadowExecutor,
) -> Engine:
    """The real engine over a `ShadowExecutor`. A scheduler that needs predictions gets `learning_predictor`."""
    if predictor is None and scheduler.needs_prediction:
        predictor = learning_predictor()
    executor = make_executor(num_blocks, block_size, max_num_seqs, eos_after or {}, voices or {})
    intake = Intake(vocab_size=VOCAB, max_model_len=num_blocks * block_size, eos_token_ids=(EOS,))
    return Engine(
        scheduler,
        eviction,
        executor,
        intake,
        EngineConfig(
            block_size=block_size,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            overlap=overlap,
            prefix_caching=prefix_caching,
        ),
        predictor=predictor,
        renew=renew,
    )
