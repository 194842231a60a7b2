"""No continuous batching: a batch is formed when nothing runs, and no request joins before the last one has ended."""

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS


@SCHEDULERS.register("static_batch")
class StaticBatch(Scheduler):
    """Request-level scheduling, the baseline that continuous batching is measured against (Orca, OSDI'22, on
    how models were served before it). All prompts of a batch run before its first decode step, and blocks are reserved
    for all that a request may come to (prompt plus `max_tokens`, or the model's limit): nobody is ever preempted.

    Args:
        batch_size: the largest number of requests per batch; null takes as many as have slots and blocks.
    """

    def __init__(self, *, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"scheduler.batch_size={batch_size} must be at least 1, or null for no limit")
        self.batch_size = batch_size
        self._batch: dict[int, RequestView] = {}
        self._prompts: list[RequestView] = []

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        if not self._batch:
            self._form(queue, plan)
            self._prompts = list(self._batch.values())
        self._prompts = [request for request in self._prompts if request.num_pending > 1 or not request.running]
        for request in self._prompts or self._batch.values():
            if plan.add(request) is Verdict.NO_TOKENS:
                break

    def _form(self, queue: Queue, plan: StepPlan) -> None:
        """Choose the next batch, in order of arrival. The first request always fits: it fits into the cache alone."""
        slots_left, blocks_left = plan.slots_left, plan.blocks_left
        if self.batch_size is not None:
            slots_left = min(slots_left, self.batch_size)
        for request in queue.waiting:
            blocks_left -= plan.blocks_needed(request, request.max_total_tokens)
            if len(self._batch) == slots_left or (self._batch and blocks_left < 0):
                break
            self._batch[request.id] = request

    def on_finish(self, request: RequestView) -> None:
        if self._batch.pop(request.id, None) is not None and request in self._prompts:
            self._prompts.remove(request)
