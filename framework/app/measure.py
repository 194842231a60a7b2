"""One measured run: a workload through an engine that is ready, from its first request to the metrics of the record."""

from __future__ import annotations

import dataclasses
import gc
import resource
from collections.abc import Callable, Sequence

from framework.app.build import build
from framework.app.quality import AnswerSample, answer_quality, attention_quality
from framework.config.settings import Settings
from framework.config.typed import objectives, with_exact_attention
from framework.engine.engine import Engine
from framework.execution.built import BuiltEngine
from framework.execution.policies import build_policies, renewal
from framework.interfaces.eviction import NeedsFuture
from framework.interfaces.observer import Observer
from framework.interfaces.workload import TimedRequest, Workload, WorkloadContext
from framework.records.environment import environment
from framework.records.metrics.quality import answer_statistics
from framework.records.metrics.recorder import Recorder
from framework.records.metrics.slo import Slo
from framework.records.metrics.summary import Metrics, summarize
from framework.records.metrics.utilization import utilization
from framework.records.plain import plain
from framework.records.record import Record, cell_id
from framework.registry import EXECUTORS, WORKLOADS
from framework.workloads.drive import drive
from framework.workloads.fingerprint import requests_sha256
from framework.workloads.future import tell_future
from framework.workloads.prepare import prepare
from framework.workloads.stated_limit import about_lengths


def describe(built: BuiltEngine, record: Record) -> None:
    """Put what was built, and where, into `record`, and which of its policies know what no engine in service knows."""
    record.effective, record.environment = dict(built.effective), environment(str(built.effective["device"]))
    engine = built.engine if isinstance(built.engine, Engine) else built.engine.engines[0]
    oracles = ["predictor"] if engine.predictor is not None and engine.predictor.oracle else []
    oracles += ["eviction"] if isinstance(engine.cache.policy, NeedsFuture) else []
    if oracles:
        record.effective["oracle"] = oracles


def draw(cfg: Settings, built: BuiltEngine, workload: Workload, record: Record) -> list[TimedRequest]:
    """The requests of `workload`, ready for the engine. An eviction policy that needs the future is told of them.

    Raises:
        ValueError: the workload cannot be drawn.
        IncompatibleError: the policy needs a future that only the run decides.
    """
    describe(built, record)
    context = WorkloadContext(
        tokenizer=built.tokenizer,
        vocab_size=built.model_config.vocab_size,
        max_model_len=built.max_model_len,
        seed=cfg.seed,
        eos_token_ids=built.eos_token_ids,
        needs_token_ids=EXECUTORS.get(cfg.executor.name).needs_token_ids,
    )
    requests = prepare(workload, context)
    record.effective["workload"] = {
        **workload.effective,
        **about_lengths(requests),
        "requests_sha256": requests_sha256(requests),
    }
    tell_future(built.engine, requests)
    return requests


def measure(
    cfg: Settings,
    built: BuiltEngine,
    requests: Sequence[TimedRequest],
    record: Record,
    observers: Sequence[Observer],
    *,
    keep_outputs: bool = False,
    startup_s: float | None = None,
    serve: Callable[[Sequence[Observer]], None] | None = None,
    scored: bool = True,
) -> None:
    """Run `requests`, or `serve` in their place, and fill `record` with whatever was done, however it ends.

    Time starts here. The quality of answers is measured after the run if it is to be `scored`. That of a server's is
    not, since whoever ends a server does not wait for it.
    """
    simulated = EXECUTORS.get(cfg.executor.name).is_simulated  # its tokens are not words
    recorder = Recorder(keep_outputs=keep_outputs, tokenizer=None if simulated else built.tokenizer)
    sample = AnswerSample()
    observers = [recorder, *observers, *([] if simulated else [sample])]
    built.engine.clock.restart()
    gc.freeze()  # what is there now need not be looked through again and again
    try:
        if serve is not None:
            serve(observers)
        else:
            limit = cfg.workload.get("max_concurrency")
            drive(built.engine, requests, observers, max_concurrency=limit)
    finally:
        gc.unfreeze()
        record.requests, record.steps = recorder.requests, recorder.steps
        record.effective |= built.after_run()
        record.outputs = recorder.outputs if keep_outputs else None
        bandwidth, flops = (
            utilization(built.costs, built.peaks, recorder.requests, recorder.steps) if built.peaks else (None, None)
        )
        record.metrics = summarize(
            recorder.requests,
            recorder.steps,
            slo=Slo(ttft_s=cfg.slo.ttft_s, tpot_s=cfg.slo.tpot_s, e2e_s=cfg.slo.e2e_s),
            percentiles=list(cfg.metrics.percentiles),
            startup_s=startup_s,
            peak_memory_gib=_peak_memory_gib(str(built.effective["device"])),
            memory_bandwidth_utilization=bandwidth,
            model_flops_utilization=flops,
        )
    if not simulated:
        record.metrics |= answer_statistics(token_ids for _, token_ids in sample.answers)
    if scored and serve is None and not simulated and isinstance(built.engine, Engine):
        _add_quality(record, lambda: answer_quality(built, sample, cfg.metrics.scored_tokens))
        if not record.effective.get("attention_exact", True):
            longest = max((r.num_prompt_tokens + r.num_output_tokens for r in record.requests), default=0)
            exact = with_exact_attention(cfg, built.single_engine.executor.num_blocks, built.effective)
            _add_quality(record, lambda: attention_quality(built, lambda: build(exact), longest))


def _add_quality(record: Record, score: Callable[[], Metrics]) -> None:
    """Add what `score` finds to the metrics. The run is over, and an error here takes nothing from its record."""
    try:
        record.metrics |= score()
    except Exception as error:  # noqa: BLE001 (recorded)
        record.effective["quality_error"] = f"{type(error).__name__}: {error}"


def measure_again(built: BuiltEngine, cfg: Settings) -> Record:
    """Run a further cell on an executor that has served others, with the policies of `cfg`, an empty cache and time 0.

    This is for studies whose cells differ in workload, seed and policies only, where building an engine can take longer
    than a run. All else in `cfg` must be what `built` was built from.
    """
    used = built.single_engine
    used.reset()
    used.intake.seed, used.intake.objectives = cfg.engine.seed, objectives(cfg)
    policies = build_policies(cfg)
    engine = Engine(
        policies.scheduler,
        policies.eviction,
        used.executor,
        used.intake,
        used.config,
        predictor=policies.predictor,
        renew=renewal(cfg),
    )
    built = dataclasses.replace(built, engine=engine)
    requested = plain(cfg)
    record = Record(status="completed", cell_id=cell_id(requested), requested=requested)
    requests = draw(cfg, built, WORKLOADS.build(cfg.workload), record)
    gc.collect()
    built.after_run()  # what it counted until now was of earlier cells
    measure(cfg, built, requests, record, [], scored=False)
    return record


def _peak_memory_gib(device: str) -> float:
    """The peak memory of the device. On a CPU, that of the process, which includes earlier cells of a sweep."""
    if not device.startswith("cuda"):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**30
