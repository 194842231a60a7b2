"""The requests whose readers gain most from being served now: quality of experience of streamed text."""

from math import inf

from framework.interfaces.records import StepRecord
from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.in_order import run_in_order
from framework.toolkit.schedulers.victim import continue_running, victim_chooser


@SCHEDULERS.register("andes")
class Andes(Scheduler):
    """Liu et al., "Andes: Defining and Enhancing Quality-of-Experience in LLM-Based Text Streaming Services" (arXiv
    2404.16283). A reader expects the first token after the TTFT objective and then one per TPOT objective; what comes
    early waits in the client. Where requests wait, every `quantum_steps` steps those are chosen to run that gain most
    from it: what `horizon_s` seconds of service add to the share of the expected tokens, per token of memory.

    Differences: the paper's quality compares areas under token curves; here it is the share of the expected tokens
    at the end of the horizon. The paper swaps memory; here a preempted request is computed again, and for that its
    memory counts twice. The paper profiles the pace of a batch; here it is that of the last steps (`on_step`).

    Args:
        ttft_s: expected time to first token of requests that state none.
        tpot_s: expected time per output token of requests that state none; 0.2 s is about the pace of reading.
        horizon_s: how far ahead a choice looks.
        quantum_steps: steps between two choices.
    """

    def __init__(
        self, *, ttft_s: float = 1.0, tpot_s: float = 0.2, horizon_s: float = 2.0, quantum_steps: int = 20
    ) -> None:
        for name, value in (("ttft_s", ttft_s), ("tpot_s", tpot_s), ("horizon_s", horizon_s)):
            if not 0 < value < inf:
                raise ValueError(f"scheduler.{name}={value} must be a finite number of seconds above 0")
        if quantum_steps < 1:
            raise ValueError(f"scheduler.quantum_steps={quantum_steps} must be at least 1")
        self.ttft_s, self.tpot_s, self.horizon_s, self.quantum_steps = ttft_s, tpot_s, horizon_s, quantum_steps
        self.choose_victim = victim_chooser("youngest")
        self._step_s = 0.02
        self._finish_s = 0.0
        self._num_steps = 0

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        self._num_steps += 1
        if not queue.waiting or (queue.running and self._num_steps % self.quantum_steps):
            preempted = continue_running(queue, plan, self.choose_victim)
            while queue.waiting and not preempted and plan.add(queue.waiting[0]) is Verdict.OK:
                pass
            return
        gains = {request.id: self._gain(request, queue.now_s) for request in (*queue.running, *queue.waiting)}
        order = sorted((*queue.running, *queue.waiting), key=lambda request: (-gains[request.id], request.id))
        run_in_order(order, queue, plan)

    def _gain(self, request: RequestView, now_s: float) -> float:
        """What being served adds to the quality at the end of the horizon, per token of memory."""
        end_s = now_s + self.horizon_s
        pace_s = request.spec.tpot_slo_s or self.tpot_s
        first_s = request.arrival_s + (request.spec.ttft_slo_s or self.ttft_s)
        expected = max(1.0, (end_s - first_s) / pace_s)
        served = request.num_output + self.horizon_s / self._step_s
        quality = min(1.0, served / expected) - min(1.0, request.num_output / expected)
        memory = request.num_tokens if request.running else 2 * request.num_tokens
        return quality / memory

    def on_step(self, record: StepRecord) -> None:
        took_s = record.finish_s - max(record.submit_s, self._finish_s)
        self._finish_s = record.finish_s
        if took_s > 0:
            self._step_s += 0.05 * (took_s - self._step_s)
