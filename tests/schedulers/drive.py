"""Serves small hand-made queues with the real engine over the shadow memory, and notes what each step did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from framework.engine.engine import Engine
from framework.engine.output import RequestOutput
from framework.interfaces.executor import StepBatch
from framework.interfaces.predictor import Predictor
from framework.interfaces.records import RequestRecord
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.scheduler import Scheduler
from plugins.eviction.lru import LRU
from tests.engine.shadow import check_invariants, make_engine


@dataclass(frozen=True, kw_only=True)
class Job:
    """A request that produces exactly `max_tokens`. Prompts share nothing unless `prompt` says what they hold."""

    prompt_tokens: int = 4
    max_tokens: int = 4
    arrival_s: float = 0.0
    priority: int = 0
    client: str = ""
    deadline_s: float | None = None
    prompt: tuple[int, ...] | None = None


@dataclass
class Served:
    """Request ids are positions in the list of jobs, which has to be sorted by arrival."""

    steps: list[dict[int, int]] = field(default_factory=list)
    """For each step the tokens of each request in it."""
    admitted: list[int] = field(default_factory=list)
    """In order of admission; after a preemption once more."""
    records: dict[int, RequestRecord] = field(default_factory=dict)

    @property
    def num_preemptions(self) -> int:
        return sum(record.num_preemptions for record in self.records.values())


def serve(
    scheduler: Scheduler,
    jobs: Sequence[Job],
    *,
    before_step: Callable[[Engine], None] | None = None,
    after_step: Callable[[Engine, list[int]], None] | None = None,
    predictor: Predictor | None = None,
    **machine: int,
) -> Served:
    """Serve `jobs` to the end. `machine` are keywords of `make_engine`. `after_step` gets the admitted requests."""
    limits = {"num_blocks": 512, "max_num_batched_tokens": 512, **machine}
    engine = make_engine(scheduler, LRU(), predictor=predictor, **limits)  # type: ignore[arg-type]
    served = Served()
    _note_steps(engine, served)
    arrivals = list(enumerate(jobs))
    for _ in range(20_000):
        while arrivals and arrivals[0][1].arrival_s <= engine.clock.now_s():
            number, job = arrivals.pop(0)
            _add(engine, number, job)
        if not engine.has_work:
            if not arrivals:
                return served
            engine.clock.sleep_until(arrivals[0][1].arrival_s)
            continue
        if before_step is not None:
            before_step(engine)
        num_admitted = len(served.admitted)
        outputs = engine.step()
        _note_ends(outputs, served)
        check_invariants(engine)
        if after_step is not None:
            after_step(engine, served.admitted[num_admitted:])
    raise AssertionError("no progress")


def _add(engine: Engine, number: int, job: Job) -> None:
    prompt = job.prompt or [(number + 1) * 100 + i for i in range(job.prompt_tokens)]
    request_id = engine.add_request(
        RequestSpec(
            prompt_token_ids=prompt,
            params=SamplingParams(max_tokens=job.max_tokens, ignore_eos=True),
            arrival_s=job.arrival_s,
            priority=job.priority,
            client=job.client,
            deadline_s=job.deadline_s,
        )
    )
    assert request_id == number


def _note_steps(engine: Engine, served: Served) -> None:
    owner: dict[int, int] = {}
    submit = engine.executor.submit

    def noting(batch: StepBatch) -> None:
        for admission in batch.admissions:
            owner[admission.slot] = admission.request_id
            served.admitted.append(admission.request_id)
        served.steps.append({owner[slot]: num for slot, num in zip(batch.slots, batch.row_tokens, strict=True)})
        submit(batch)

    engine.executor.submit = noting  # type: ignore[method-assign]


def _note_ends(outputs: list[RequestOutput], served: Served) -> None:
    for output in outputs:
        assert output.record is not None
        served.records[output.request_id] = output.record
