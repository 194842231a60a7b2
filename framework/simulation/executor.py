"""An executor without a device: a cost model says how long a step takes, and a virtual clock moves on by that much."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from math import inf

from framework.execution.graphs.select_graph import graph_for, graph_name, select_graph
from framework.interfaces.clock import VirtualClock
from framework.interfaces.cost_model import CostModel, StepShape
from framework.interfaces.errors import PluginError
from framework.interfaces.executor import Executor, StepBatch, StepResult
from framework.interfaces.graph import GraphKey, GraphLimits, GraphStrategy
from framework.simulation.shadow_memory import ShadowMemory
from framework.toolkit.step_shape import step_shape


class SimulatedExecutor(Executor):
    """A host and a device that work at the same time, like a GPU and the process that feeds it.

    `submit` takes the host's time of a step and returns while the device is still at it; steps run one after the
    other; `collect` returns when its step has ended. So with `engine.overlap=1` the host's time hides behind the
    device's where it is shorter. A token is a function of the request and its position, below `vocab_size`.
    """

    clock: VirtualClock

    def __init__(
        self,
        cost_model: CostModel,
        strategy: GraphStrategy,
        limits: GraphLimits,
        *,
        num_blocks: int,
        vocab_size: int,
        clock: VirtualClock | None = None,
        memory: ShadowMemory | None = None,
    ) -> None:
        """
        Args:
            clock: shared by the replicas of one simulation; None makes one.
            memory: checks every position that a step reads; None trusts the engine.
        """
        self.num_blocks = num_blocks
        self.clock = clock or VirtualClock()
        self.graphs = _Graphs(strategy, limits)
        self._cost_model, self._cost = cost_model, cost_model.cost
        self._vocab_size = vocab_size
        self._request_ids = [-1] * limits.max_num_seqs
        self._pending: deque[tuple[float, StepResult]] = deque()
        self._last_slots: list[int] = []
        self._memory = memory
        self._device_free_s = 0.0

    def submit(self, batch: StepBatch) -> None:
        clock, graphs = self.clock, self.graphs
        request_ids = self._request_ids
        for admission in batch.admissions:
            request_ids[admission.slot] = admission.request_id
        key = graphs.select(batch)
        new_rows = bool(batch.admissions) or batch.slots != self._last_slots
        self._last_slots = batch.slots
        step = step_shape(batch, key, graphs.scope if key is not None else None, graphs.captured_now, new_rows)
        device_s, host_s, launch_s = self._cost(step)
        if not (0 <= device_s < inf and 0 <= host_s < inf and 0 <= launch_s < inf):  # NaN would stop the clock for good
            raise PluginError(
                f"cost model {type(self._cost_model).__name__}: step {batch.step} costs device_s={device_s}, "
                f"host_s={host_s}, launch_s={launch_s}; each must be a finite number of seconds, at least 0"
            )
        clock.time_s += host_s
        begin_s = max(clock.time_s, self._device_free_s) if self._pending else clock.time_s
        clock.time_s += launch_s
        end_s = self._device_free_s = max(begin_s + device_s, clock.time_s)
        result = StepResult(
            step=batch.step,
            token_ids=self._sample(batch, step.num_sampled),
            graph_key=graph_name(graphs.scope, key),
            num_padding_tokens=step.padded_tokens - step.num_tokens,
            run_s=end_s - begin_s,
        )
        if self._memory is not None:
            self._verify(self._memory, batch, result.token_ids)
        self._pending.append((end_s, result))

    def collect(self) -> StepResult:
        end_s, result = self._pending.popleft()
        self.clock.sleep_until(end_s)
        return result

    def forecaster(self, overlap: int) -> Callable[[StepShape], float]:
        return partial(self._seconds, overlap)

    def _seconds(self, overlap: int, step: StepShape) -> float:
        graphs = self.graphs
        key = graph_for(graphs.strategy, step)
        if key is not None:
            rows = key.num_rows or step.num_rows
            step = step._replace(scope=graphs.scope, padded_tokens=key.num_tokens, padded_rows=rows)
        device_s, host_s, launch_s = self._cost(step)
        return max(device_s, host_s + launch_s) if overlap else host_s + max(device_s, launch_s)

    def discard(self) -> None:
        self._pending.clear()
        self._last_slots = []

    def close(self) -> None:
        self._pending.clear()

    def effective(self) -> dict[str, object]:
        return {"graphs_captured": self.graphs.num_captured}

    @staticmethod
    def _verify(memory: ShadowMemory, batch: StepBatch, token_ids: list[int]) -> None:
        memory.check(batch)
        memory.run(batch)
        rows = zip(batch.slots, batch.starts, batch.row_tokens, batch.samples, strict=True)
        sampled = ((slot, start + num) for slot, start, num, samples in rows if samples)
        for (slot, position), token in zip(sampled, token_ids, strict=True):
            memory.sampled(slot, position, token)

    def _sample(self, batch: StepBatch, num_sampled: int) -> list[int]:
        request_ids, size = self._request_ids, self._vocab_size
        if num_sampled == len(batch.slots) == batch.num_decode_rows:
            return [
                (request_ids[slot] * 1_000_003 + start * 7919 + 7919) % size
                for slot, start in zip(batch.slots, batch.starts, strict=True)
            ]
        rows = zip(batch.slots, batch.starts, batch.row_tokens, batch.samples, strict=True)
        return [token_at(request_ids[slot], start + num, size) for slot, start, num, samples in rows if samples]


def token_at(request_id: int, position: int, vocab_size: int) -> int:
    """The token of a simulated request at `position` of its sequence, if that is an output."""
    return (request_id * 1_000_003 + position * 7919) % vocab_size


class _Graphs:
    """The graphs that the strategy would have captured. With `max_graphs`, the one not replayed for longest goes."""

    def __init__(self, strategy: GraphStrategy, limits: GraphLimits) -> None:
        self.scope = strategy.scope
        self.strategy = strategy
        self._held: OrderedDict[GraphKey, None] = OrderedDict.fromkeys(strategy.keys(limits))
        self.num_captured = len(self._held)
        self.captured_now = False

    def select(self, batch: StepBatch) -> GraphKey | None:
        """The key that replays `batch`, chosen as on a GPU. `captured_now` says whether it had to be captured first."""
        self.captured_now = False
        key = select_graph(self.strategy, batch)
        if key is None:
            return None
        if key not in self._held:
            if self.strategy.max_graphs is not None and len(self._held) >= self.strategy.max_graphs:
                self._held.popitem(last=False)
            self._held[key] = None
            self.num_captured += 1
            self.captured_now = True
        elif self.strategy.max_graphs is not None:
            self._held.move_to_end(key)
        return key
