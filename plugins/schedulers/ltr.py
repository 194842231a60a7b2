"""The answers that are expected to be the shortest first, and none waits for ever: scheduling by predicted ranks."""

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.in_order import run_in_order


@SCHEDULERS.register("ltr")
class LearningToRank(Scheduler):
    """Fu et al., "Efficient LLM Scheduling by Learning to Rank" (NeurIPS'24, arXiv 2408.15792). All requests, running
    ones too, are ordered in each step by the length that was expected at their arrival. A request that has not run for
    `starvation_steps` steps goes to the front until it has run for `quantum_steps` steps.

    Differences: the paper trains an OPT model to rank prompts, here any `predictor` gives the order by its mean. The
    paper swaps the memory of a preempted request or computes it again, here it is always computed again.

    Args:
        starvation_steps: steps without a token after which a request is moved to the front.
        quantum_steps: how many steps it stays there.
    """

    needs_prediction = True

    def __init__(self, *, starvation_steps: int = 200, quantum_steps: int = 20) -> None:
        for name, value in (("starvation_steps", starvation_steps), ("quantum_steps", quantum_steps)):
            if value < 1:
                raise ValueError(f"scheduler.{name}={value} must be at least 1")
        self.starvation_steps, self.quantum_steps = starvation_steps, quantum_steps
        self._expected: dict[int, float] = {}
        self._ran_in: dict[int, int] = {}
        """The last step that a request ran in, or was promoted or arrived before."""
        self._quantum: dict[int, int] = {}
        """Steps that promoted requests stay in front."""
        self._num_steps = 0

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        self._num_steps += 1
        requests = [*queue.running, *queue.waiting]
        for request in requests:
            if self._num_steps - self._ran_in[request.id] > self.starvation_steps:
                self._quantum.setdefault(request.id, self.quantum_steps)
        for request in run_in_order(sorted(requests, key=self._rank), queue, plan):
            self._ran_in[request.id] = self._num_steps
            if request.id in self._quantum:
                self._quantum[request.id] -= 1
                if self._quantum[request.id] == 0:
                    del self._quantum[request.id]

    def _rank(self, request: RequestView) -> tuple[bool, float, int]:
        return request.id not in self._quantum, self._expected[request.id], request.id

    def on_arrival(self, request: RequestView) -> None:
        assert request.predicted is not None
        self._expected[request.id], self._ran_in[request.id] = request.predicted.mean, self._num_steps

    def on_finish(self, request: RequestView) -> None:
        del self._expected[request.id], self._ran_in[request.id]
        self._quantum.pop(request.id, None)
