"""One cell: compose (Hydra did) -> check -> build -> run -> record."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from framework.config.check import check, check_credentials
from framework.config.settings import Settings
from framework.interfaces.errors import IncompatibleError
from framework.registry import EXECUTORS, TRACKERS, WORKLOADS

if TYPE_CHECKING:  # run.py must reach composition errors without waiting for these
    from framework.app.launching.inputs import Inputs
    from framework.interfaces.observer import Observer
    from framework.interfaces.records import RequestRecord
    from framework.interfaces.workload import Workload
    from framework.records.record import Record, Status
    from framework.records.tracking.base import CellInfo, Tracker


def run_cell(cfg: DictConfig, cell: CellInfo | None = None) -> Status:
    """Run the cell that `cfg` describes and write its record. An error ends the cell, not the sweep around it.

    Args:
        cell: What the record and the tracker say about it; None takes it from the running Hydra app.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with the record written as `interrupted`; a second one kills the
            process.
    """
    from framework.app.launching.inputs import read_inputs
    from framework.app.launching.resume_key import check_unchanged, code_hashes, resume_key
    from framework.records.environment import environment
    from framework.records.metrics.quality import attention_note
    from framework.records.record import Record, RecordWriter
    from framework.records.tracking.base import publish

    check_credentials(cfg)
    cell = cell or hydra_cell(cfg)
    inputs = read_inputs(cell.config)
    record = Record(
        status="completed",
        cell_id=cell.cell_id,
        resume_key=resume_key(cell.config, inputs),
        requested=cell.config,
        environment=environment(),
    )
    tracker: Tracker | None = None
    refused = False  # a single run that cannot be had, as it was asked for
    with interruptible():
        try:
            timeline_max_events = cfg.record.timeline_max_events if cfg.record.timeline else 0
            writer = RecordWriter(cell.folder, timeline_max_events=timeline_max_events)
            try:
                check_unchanged(cell.config, record.resume_key)
                settings = check(cfg)
                workload = WORKLOADS.build(settings.workload)  # a missing file is known before anything is started
                tracker = TRACKERS.build(settings.tracker)
                tracker.start(cell)
                if settings.calibrate.enabled:
                    _calibrate(settings, record, cell.folder)
                else:
                    _measure(settings, workload, record, tracker, cell.folder)
                    record.status, record.reason = _served(record.requests, workload.left_out)
                    if record.status == "completed":
                        record.reason = "; ".join(
                            filter(None, (attention_note(record.effective, record.metrics), record.reason))
                        )
            except IncompatibleError as error:
                # A sweep goes on without a combination that cannot work. A single run of it gets an error.
                record.status, record.reason = "skipped" if cell.group else "failed", str(error)
                refused = not cell.group
            except KeyboardInterrupt as error:
                record.status, record.reason = "interrupted", str(error) or "Ctrl-C"
            except Exception as error:  # noqa: BLE001 (recorded and printed; a sweep goes on)
                record.status, record.reason = "failed", _one_line(error)
                refused = isinstance(error, ValueError) and not cell.group
                record.traceback = traceback.format_exc()
            record.effective["inputs"] = inputs
            record.environment["code"] = code_hashes(cell.config)
            _check_certain(record, inputs)
            try:
                if tracker is None:
                    writer.write(record)
                else:
                    publish(record, writer, tracker)
            except ValueError as error:  # no room for its tables, perhaps
                writer.write_failure(record, str(error))
        except ValueError as error:  # the record itself cannot be written
            record.status, record.reason = "failed", str(error)
        _report(record, cfg.executor.name, cell.folder, "error" if refused else record.status)
    if record.status == "interrupted":
        raise KeyboardInterrupt
    return record.status


def _check_certain(record: Record, inputs: Inputs) -> None:
    """Say of a completed cell if its sources or inputs changed while it ran; `resume` will then run it again."""
    from framework.app.launching.inputs import read_inputs
    from framework.app.launching.resume_key import resume_key, what_changed

    if record.status != "completed":
        return
    after = read_inputs(record.requested)
    if changed := what_changed(record.requested, inputs, after):
        record.reason, record.resume_key = "; ".join(filter(None, (record.reason, changed))), ""
    elif after != inputs:  # what was downloaded
        record.effective["inputs"], record.resume_key = after, resume_key(record.requested, after)


def hydra_cell(cfg: DictConfig, hydra: Any = None, folder: Path | None = None) -> CellInfo:
    """The cell as Hydra knows it: folder, group choices, overrides, and the sweep that it belongs to.

    Args:
        hydra: Hydra's own configuration; None takes that of the running Hydra app.
        folder: where the record goes; None takes the app's output folder.

    Its tags are the study's, and the overrides that choose an option of a group (`scheduler=fifo`); with the seed and
    the arm of the study these make its name.
    """
    from framework.records.record import cell_id
    from framework.records.tracking.base import CellInfo

    hydra = hydra or HydraConfig.get()
    config: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    groups = {str(group): str(name) for group, name in hydra.runtime.choices.items() if name is not None}
    choices = {group: name for group, name in groups.items() if "hydra" not in group}
    overrides = list(hydra.overrides.task)
    chosen = [text for text in overrides if text.partition("=")[0] in choices]
    others = [text for text in overrides if text.startswith(("seed=", "study.arm="))]
    return CellInfo(
        folder=folder or Path(hydra.runtime.output_dir),
        cell_id=cell_id(config),
        config=config,
        choices=choices,
        overrides=overrides,
        name=" ".join([*chosen, *others])[:128],
        study=choices.get("experiment", ""),
        tags=[text for text in [*cfg.study.tags, *chosen] if len(text) <= 64],  # W&B's limit
        group=Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else "",
    )


def _measure(cfg: Settings, workload: Workload, record: Record, tracker: Tracker, folder: Path) -> None:
    """Build and run the cell, and fill `record` with what was done, however it ends."""
    start_s = time.perf_counter()
    from framework.app.build import build
    from framework.app.measure import draw, measure
    from framework.app.progress import ProgressBar
    from framework.workloads.console import AnswerPrinter

    with ExitStack() as stack:
        if workload.is_live:
            _serve(cfg, record, tracker, folder, stack, start_s)
            return
        built = build(cfg)
        stack.enter_context(closing(built.engine))
        requests = draw(cfg, built, workload, record)
        startup_s = time.perf_counter() - start_s
        simulated = EXECUTORS.get(cfg.executor.name).is_simulated
        has_text = workload.has_text and not simulated
        screen: Observer
        if workload.prints_answers and has_text:
            screen = stack.enter_context(closing(AnswerPrinter()))
        else:
            screen = stack.enter_context(ProgressBar(len(requests), simulated=simulated))
        keep_outputs = cfg.record.outputs or has_text
        measure(cfg, built, requests, record, [tracker, screen], keep_outputs=keep_outputs, startup_s=startup_s)


def _serve(cfg: Settings, record: Record, tracker: Tracker, folder: Path, stack: ExitStack, start_s: float) -> None:
    """Run a cell whose requests come over HTTP."""
    from framework.app.build import build
    from framework.app.measure import describe, measure
    from framework.app.serving.serve import check_live, listen, serve

    check_live(cfg)
    listener = stack.enter_context(closing(listen(cfg)))  # a port that is taken is known before anything is loaded
    built = build(cfg)
    stack.enter_context(closing(built.engine))
    describe(built, record)

    def session(observers: Sequence[Observer]) -> None:
        serve(cfg, built, listener, observers, folder)

    startup_s = time.perf_counter() - start_s
    measure(cfg, built, (), record, [tracker], keep_outputs=cfg.record.outputs, startup_s=startup_s, serve=session)


def _served(requests: Sequence[RequestRecord], left_out: str) -> tuple[Status, str]:
    """The status and reason of a run that came to its end. A run that served nothing has failed.

    The reason names what is missing, with the first cause of each kind: lines of the workload's file that were
    `left_out`, rejected requests, and requests that failed.
    """
    counts = [left_out] if left_out else []
    num_unserved = 0
    for reason, what in (("rejected", "were rejected"), ("failed", "failed")):
        errors = [request.error for request in requests if request.finish_reason == reason]
        num_unserved += len(errors)
        if errors:
            number = f"all {len(errors)}" if len(errors) == len(requests) else f"{len(errors)} of {len(requests)}"
            counts.append(f"{number} requests {what}, the first because: {errors[0]}")
    if num_unserved and num_unserved == len(requests):
        return "failed", f"served nothing: {'; '.join(counts)}"
    return "completed", "; ".join(counts)


def _calibrate(cfg: Settings, record: Record, folder: Path) -> None:
    """Measure step times on this machine and write their profile."""
    from framework.app.build import build
    from framework.records.atomic import write_text
    from framework.records.environment import environment
    from framework.simulation.calibration.fit import poor_fit
    from framework.simulation.calibration.run import calibrate

    if EXECUTORS.get(cfg.executor.name).is_simulated:
        raise IncompatibleError("experiment=calibrate measures a real device; set executor=local")
    built = build(cfg)
    with closing(built.engine):
        record.effective, record.environment = dict(built.effective), environment(str(built.effective["device"]))
        profile, _ = calibrate(cfg, built, record.environment)
    path = folder / f"{profile.hardware}-{profile.model_name}-{profile.dtype}-tp{profile.tp}.json"
    write_text(path, profile.to_json())
    for error in profile.errors:
        spread = f"{error.median:.1%} median, {error.p95:.1%} p95"
        print(f"{error.regime}: error of {error.num_points} held-out points: {spread}")
        record.metrics |= {f"fit_error/{error.regime}/median": error.median, f"fit_error/{error.regime}/p95": error.p95}
    record.reason = poor_fit(profile.errors)  # printed as a warning
    print(
        f"profile: {path}\nuse it: executor=simulated executor.hardware={profile.hardware} cost_model=profiled "
        f"cost_model.path={path}"
    )


@contextmanager
def interruptible() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM inside raises KeyboardInterrupt, so that the record gets written; the next one kills.

    If a launcher or submitit handles SIGTERM already, its handler stays.
    """
    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield
        return

    def first(number: int, frame: object) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_DFL)
        print("interrupted: writing the record (Ctrl-C again kills)", file=sys.stderr, flush=True)
        raise KeyboardInterrupt("" if number == signal.SIGINT else signal.Signals(number).name)

    ours = [signal.SIGINT, *([signal.SIGTERM] if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else [])]
    previous = {each: signal.signal(each, first) for each in ours}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def _report(record: Record, executor: str, folder: Path, ended: str) -> None:
    """Print the metrics and, if the cell did not complete, how it `ended` and why."""
    from framework.app.progress import chosen, print_summary

    if record.metrics:
        is_simulated = EXECUTORS.get(executor).is_simulated
        print_summary(record.metrics, simulated=str(record.effective.get("device", "")) if is_simulated else "")
        print(f"chosen: {chosen(record.requested, record.effective)}")
    if record.status != "completed":
        hint = f" (traceback in {folder / 'error.txt'})" if record.traceback else ""
        print(f"{ended}: {record.reason}{hint}", file=sys.stderr, flush=True)
    elif record.reason:
        print(f"warning: {record.reason}", file=sys.stderr, flush=True)
    print(f"record: {folder}", flush=True)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
