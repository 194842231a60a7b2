"""The least that is left first, as far as it is known by now, and no request is stopped late in its life."""

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.in_order import run_in_order
from framework.toolkit.schedulers.output_length import remaining_tokens


@SCHEDULERS.register("trail")
class Trail(Scheduler):
    """Shahout et al., "Don't Stop Me Now: Embedding Based Scheduling for LLMs" (ICLR'25, arXiv 2410.01035): shortest
    predicted remaining time first, where a request may be preempted only before it has produced the share
    `preemptible` of the length that was predicted at its arrival. Later it would give up too much memory and work.

    Differences: the paper reads the remaining length from hidden states of the model after every token, here the
    `predictor` follows the tokens that came. What is left of a prompt counts as much as it costs in the paper's
    queue model, nothing: all prompts are short there, and long ones run first come first served among equals here.
    Requests late in their life still yield if nothing else does when blocks run out.

    Args:
        preemptible: the share C of the paper, in [0, 1]. At 0 a request that runs stays, at 1 it may be preempted until
            it passes its predicted length.
    """

    needs_prediction = True

    def __init__(self, *, preemptible: float = 0.8) -> None:
        if not 0 <= preemptible <= 1:
            raise ValueError(f"scheduler.preemptible={preemptible} must be in [0, 1]")
        self.preemptible = preemptible
        self._expected: dict[int, float] = {}

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        run_in_order(sorted([*queue.running, *queue.waiting], key=self._rank), queue, plan)

    def _rank(self, request: RequestView) -> tuple[bool, float, int]:
        stays = request.running and request.num_output >= self.preemptible * self._expected[request.id]
        return not stays, remaining_tokens(request), request.id

    def on_arrival(self, request: RequestView) -> None:
        assert request.predicted is not None
        self._expected[request.id] = request.predicted.mean

    def on_finish(self, request: RequestView) -> None:
        del self._expected[request.id]
