"""The command `python run.py`: Hydra composes, `run_cell` runs, the exit code says how it ended."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from framework.app.cli.help import help_text, is_asked_for
from framework.app.experiment import run_cell
from framework.app.launching.arguments import expand
from framework.app.launching.callback import end_sweep, gone_sweep
from framework.app.launching.child import LOG
from framework.app.launching.display import dry_run
from framework.app.launching.folder import FolderTakenError
from framework.app.launching.resume_key import note_imported
from framework.app.launching.sweep_file import Cell, Sweep
from framework.config.compose import CONF_DIR, compose, prepare
from framework.config.explain import explain
from framework.execution.parallel.world import world_rank
from framework.records.reasons import listed, once_per_reason
from framework.records.record import SUMMARY
from framework.records.tracking.offline_runs import offline_runs
from framework.registry.discovery import discover

_WANTS_TRACEBACK = bool(os.environ.get("HYDRA_FULL_ERROR"))


def main(arguments: Sequence[str]) -> int:
    """Run what `arguments` (those after the program's name) ask for.

    Returns:
        0 when cells completed and the others, if any, were skipped; 1 when one failed or none completed; 2 for a
        configuration that does not compose; 130 after Ctrl-C or SIGTERM.
    """
    if (rank := world_rank()) is not None:  # one of torchrun's
        from framework.execution.parallel.torchrun import dismiss, serve

        if rank > 0:
            return serve()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints and exits itself, without the valid keys
    try:
        code = _run(arguments)
    finally:
        if rank is not None:
            dismiss()
    if dry_run.FLAG in arguments:
        return code
    if code == 2:  # nothing ran, and a folder that is another sweep's stays as it is
        return code
    if (gone := gone_sweep()) is not None:
        print(f"error: {gone} was removed while the sweep ran there, and the records in it", file=sys.stderr)
        return code or 1
    sweep = end_sweep()
    if sweep is None or not sweep.cells:
        return code
    counts = Counter(cell.status for cell in sweep.cells)
    reused = sum(cell.reused for cell in sweep.cells)
    states = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    print(f"{len(sweep.cells)} cells: {states}" + (f" ({reused} of them earlier)" if reused else ""))
    for reason, names in once_per_reason(
        (cell.folder, cell.reason) for cell in sweep.cells if cell.status == "skipped"
    ):
        print(f"skipped: {listed(names)}: {reason}")
    print(f"sweep: {sweep.folder}", flush=True)
    if offline := offline_runs(sweep.folder):
        where = shlex.quote(str(sweep.folder))
        print(f"wandb: {offline} offline runs; upload all of them with: wandb sync {where}/*/wandb/offline-run-*")
    if sweep.problem:
        _say(sweep.problem)
    elif code != 130:
        _warn(sweep.cells)
    lost = [cell.folder for cell in sweep.cells if cell.status == "completed" and not _has_record(sweep, cell)]
    if lost:
        _say(f"{len(lost)} records were removed while the sweep ran, the first in {sweep.folder / lost[0]}")
    bad = [cell for cell in sweep.cells if cell.status not in ("completed", "skipped") and not cell.reused]
    return code or int(bool(bad or lost or sweep.problem) or not counts["completed"])


def _has_record(sweep: Sweep, cell: Cell) -> bool:
    return (sweep.folder / cell.folder / SUMMARY).is_file()


def _warn(cells: Sequence[Cell]) -> None:
    """Say at the end, where it is seen, that a sweep has no result, or which of its results are less than they seem."""
    completed = [cell for cell in cells if cell.status == "completed"]
    if not completed:
        first = cells[0]
        _say(f"nothing completed; cell {first.folder} {first.status}: {first.reason or f'see {LOG} in its folder'}")
    partial = [cell for cell in completed if cell.reason]
    if partial:
        which = listed([cell.folder for cell in partial])
        _say(f"completed, with a reservation: {which}; cell {partial[0].folder}: {partial[0].reason}")


def _say(warning: str) -> None:
    print(f"warning: {warning}", file=sys.stderr, flush=True)


def _run(arguments: Sequence[str]) -> int:
    failed: list[str] = []

    def task(cfg: DictConfig) -> None:
        discover(cfg.plugins)  # on another machine nothing has been found yet
        note_imported()
        status = run_cell(cfg)
        hydra_config = HydraConfig.get()
        in_sweep = hydra_config.mode == RunMode.MULTIRUN
        if status == "failed":
            failed.append(status)
        if not in_sweep and hydra_config.sweeper.get("params"):
            print("note: this was one cell of a study with axes of its own; run.py -m runs all", file=sys.stderr)

    try:
        arguments = expand(arguments)
        _check_flags(arguments)
        overrides = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
        if is_asked_for(arguments):
            prepare(overrides)
            print(help_text(overrides), flush=True)
            return 0
        # Hydra reads sys.argv, and its parser wants overrides in one piece: `a=1 -m b=2,3` becomes `-m a=1 b=2,3`.
        flags = [a for a in arguments if a not in overrides and a != dry_run.FLAG]
        is_sweep = bool({"-m", "--multirun"} & set(flags))
        late = [f"{dry_run.KEY}=true"] if is_sweep and dry_run.FLAG in arguments else []
        sys.argv[1:] = [*flags, *prepare(overrides), *late]
        if dry_run.FLAG in arguments and not {"-m", "--multirun"} & set(arguments):
            dry_run.print_outlook([(overrides, compose(overrides))])
            return int(bool(dry_run.failing))
        hydra.main(config_path=str(CONF_DIR), config_name="config", version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(explain(error), error)
    except (ValueError, FolderTakenError) as error:
        return _refuse(str(error), error)
    except BrokenPipeError:  # whoever reads, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # run_cell records its own; this is Hydra making the folder, or somebody removing it
        if gone_sweep() is not None:
            return 1  # `main` says so
        where = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{where}{error.strerror or error}; set hydra.run.dir or hydra.sweep.dir to another", error)
    except KeyboardInterrupt:
        return 130
    return int(bool(failed or dry_run.failing))


def _check_flags(arguments: Sequence[str]) -> None:
    """Refuse a flag that does not exist in our words, and not with Hydra's page of usage."""
    known = [*get_args_parser()._option_string_actions, dry_run.FLAG]
    for flag, is_set, value in (text.partition("=") for text in arguments if text.startswith("--")):
        if flag == dry_run.FLAG and is_set:
            raise ValueError(f"{flag}={value}: {flag} takes no value; give {flag} alone, or leave it out")
        if flag not in known:
            close = difflib.get_close_matches(flag, known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"{flag} is not an option of this command{hint}; servelab run --help lists what is")


def _refuse(message: str, error: BaseException) -> int:
    if _WANTS_TRACEBACK:
        raise error
    print(f"error: {message}", file=sys.stderr)
    return 2
