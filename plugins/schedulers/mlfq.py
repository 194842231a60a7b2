"""Multi-level feedback queue: requests that have produced little go first, since they may well be short."""

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.ranked import WaitingHeap

MAX_LEVELS = 64


@SCHEDULERS.register("mlfq")
class MLFQ(Scheduler):
    """Skip-join MLFQ (FastServe, arXiv 2305.05920). A request joins the first level whose quantum covers
    its prompt, falls one when its quantum is used up, and returns to the top when it has waited too long. A level takes
    tokens, slots and blocks from those below; FastServe swaps the loser's KV to the host, here it is computed again.

    Args:
        num_levels: 0 is the top; at most 64.
        quantum_steps: decode steps that a request may run at level 0; each level has twice those of the one above.
        tokens_per_step: prompt tokens that take as long as a decode step.
        starvation_s: seconds of waiting after which a request returns to level 0.
    """

    def __init__(
        self, *, num_levels: int = 6, quantum_steps: int = 8, tokens_per_step: int = 256, starvation_s: float = 10.0
    ) -> None:
        if min(num_levels, quantum_steps, tokens_per_step) < 1 or not starvation_s > 0:
            given = f"{num_levels=}, {quantum_steps=}, {tokens_per_step=}, {starvation_s=}"
            raise ValueError(f"scheduler=mlfq: {given}: set the first three to at least 1, the last above 0")
        if num_levels > MAX_LEVELS:
            raise ValueError(f"scheduler=mlfq: {num_levels=} must be at most {MAX_LEVELS}: a quantum doubles per level")
        self.quanta_steps = [quantum_steps << level for level in range(num_levels)]
        self.tokens_per_step, self.starvation_s = tokens_per_step, starvation_s
        self._level: dict[int, int] = {}
        self._steps_left: dict[int, int] = {}
        self._by_level, self._by_wait = WaitingHeap(), WaitingHeap()  # both hold every waiting request

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        for request in self._by_wait.pop_up_to(queue.now_s - self.starvation_s):
            self._join(request, 0)
        self._running: list[list[RequestView]] = [[] for _ in self.quanta_steps]
        for request in queue.running:
            self._running[self._level[request.id]].append(request)
        for level, group in enumerate(self._running):
            for request in group:
                while plan.add(request) is Verdict.NO_BLOCKS:
                    self._preempt_lowest(queue, plan)
            while (head := self._by_level.first()) is not None and self._level[head.id] == level:
                verdict = plan.add(head)
                if verdict is Verdict.OK:
                    self._by_level.discard(head)
                    self._by_wait.discard(head)
                elif verdict in (Verdict.NO_SLOTS, Verdict.NO_BLOCKS) and any(self._running[level + 1 :]):
                    self._preempt_lowest(queue, plan)
                else:
                    break

    def _preempt_lowest(self, queue: Queue, plan: StepPlan) -> None:
        victim = next(group for group in reversed(self._running) if group).pop()
        plan.preempt(victim)
        self._by_level.push(victim, (self._level[victim.id], victim.id))
        self._by_wait.push(victim, queue.now_s)

    def _join(self, request: RequestView, level: int) -> None:
        self._level[request.id], self._steps_left[request.id] = level, self.quanta_steps[level]
        if not request.running:
            self._by_level.push(request, (level, request.id))

    def on_arrival(self, request: RequestView) -> None:
        steps = -(-request.num_pending // self.tokens_per_step)
        level = next((i for i, quantum in enumerate(self.quanta_steps) if quantum >= steps), len(self.quanta_steps) - 1)
        self._by_wait.push(request, request.arrival_s)
        self._join(request, level)
        self._steps_left[request.id] -= steps - 1  # the last of these produces the first token, which counts on its own

    def on_tokens(self, request: RequestView, num_new: int) -> None:
        self._steps_left[request.id] -= num_new
        if self._steps_left[request.id] <= 0 and self._level[request.id] < len(self.quanta_steps) - 1:
            self._join(request, self._level[request.id] + 1)

    def on_finish(self, request: RequestView) -> None:
        self._by_level.discard(request)
        self._by_wait.discard(request)
        del self._level[request.id], self._steps_left[request.id]
