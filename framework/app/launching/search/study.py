"""Optuna's side of a search: the distributions of its axes, a study that may go on from an earlier one, its result."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from framework.config.quote import short
from framework.records.atomic import write_text
from framework.records.plain import plain

RESULT = "search.json"
_ASKED = "servelab"
"""The attribute of a stored study that holds what it asked."""
_SAMPLERS = {"tpe": "TPESampler", "nsgaii": "NSGAIISampler", "random": "RandomSampler", "qmc": "QMCSampler"}
_SHOWN = 5


def distribution(axis: Override) -> Any:
    """Optuna's distribution for an override with several values; None for one that says a single value.

    The values of a choice are texts for Optuna, written as in an override.

    Raises:
        ValueError: Optuna is not installed, or the axis has no value.
    """
    if not axis.is_sweep_override():
        return None
    optuna = _optuna()
    sweep: Any = axis.value()
    if axis.is_interval_sweep():
        is_whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        kind = optuna.distributions.IntDistribution if is_whole else optuna.distributions.FloatDistribution
        try:
            return kind(sweep.start, sweep.end, log="log" in sweep.tags)
        except ValueError as error:
            raise ValueError(f"{axis.input_line}: {' '.join(str(error).split())}") from error
    levels: list[Any] = list(axis.sweep_iterator())
    if not levels:
        raise ValueError(f"{axis.input_line}: an axis has no value; range(5) has five")
    if len(levels) == 1:
        return None
    if axis.is_range_sweep() and not sweep.shuffle:
        low, high, step = min(levels), max(levels), abs(sweep.step)
        is_whole = all(isinstance(level, int) for level in levels)
        kind = optuna.distributions.IntDistribution if is_whole else optuna.distributions.FloatDistribution
        return kind(low, high, step=step)
    choices = [short(level) for level in levels]
    shuffled = getattr(sweep, "shuffle", False)  # another order each time, which a stored study would not take
    return optuna.distributions.CategoricalDistribution(sorted(choices) if shuffled else choices)


def open_study(asked: Mapping[str, Any], sampler: DictConfig, storage: str | None, name: str | None) -> Any:
    """A study that asks what `asked` says (`objective`: metric to direction), with its earlier trials if it is stored.

    Raises:
        ValueError: the storage cannot be opened, or its study of this name asked something else.
    """
    optuna = _optuna()
    where = None
    if storage is not None:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            where = optuna.storages.RDBStorage(storage)
        except (ValueError, ImportError, SQLAlchemyError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"hydra.sweeper.storage={storage} cannot be opened: {reason}; name a file, as sqlite:///search.db does"
            ) from error
    elif name is not None:
        raise ValueError(
            f"hydra.sweeper.study_name={name}: trials are kept under a name only with "
            "hydra.sweeper.storage=sqlite:///search.db"
        )
    directions = list(asked["objective"].values())
    study = optuna.create_study(study_name=name, storage=where, directions=directions, load_if_exists=True)
    _check_same(study, json.loads(json.dumps(plain(asked))), storage)
    study.sampler = _sampler(optuna, sampler, len(study.get_trials(deepcopy=False)))
    if storage is not None:
        print(f"search: hydra.sweeper.study_name={study.study_name} in {storage}")
    return study


def failed() -> Any:
    """Optuna's state of a trial without a value."""
    return _optuna().trial.TrialState.FAIL


def write_result(study: Any, directions: Mapping[str, str], folder: Path) -> str:
    """Print the best trials and write them to `search.json`. If there is none, return the reason."""
    optuna = _optuna()
    trials = study.get_trials(deepcopy=False)
    completed = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    best = (study.best_trials if len(directions) > 1 else [study.best_trial]) if completed else []
    listed = [
        {
            "trial": trial.number,
            "folder": trial.user_attrs.get("folder", ""),
            "metrics": dict(zip(directions, trial.values, strict=True)),
            "parameters": dict(trial.params),
        }
        for trial in best
    ]
    values = {"study_name": study.study_name, "objective": dict(directions), "trials": len(trials), "best": listed}
    write_text(folder / RESULT, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    wanted = ", ".join(f"{way} {name}" for name, way in directions.items())
    if not best:
        reasons = [trial.user_attrs["reason"] for trial in trials if "reason" in trial.user_attrs]
        return f"no trial of {len(trials)} has a value to {wanted}; the last one: {(reasons or ['it was not run'])[-1]}"
    what = "best" if len(directions) == 1 else f"{len(best)} trade-offs"
    print(f"{what} of {len(trials)} trials ({len(completed)} with a value; {wanted}):")
    for one in listed:
        metrics = " ".join(f"{name}={value:.6g}" for name, value in one["metrics"].items())
        print(f"  {metrics}   {' '.join(f'{key}={value}' for key, value in one['parameters'].items())}")
    return ""


def _check_same(study: Any, asked: Mapping[str, Any], storage: str | None) -> None:
    """Record what the study asks, or refuse to add trials to one that asked something else."""
    before = study.user_attrs.get(_ASKED)
    if before is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_ASKED, asked)
        return
    if before == asked:
        return
    where = f"hydra.sweeper.study_name={study.study_name} in {storage}"
    remedy = "trials of two searches cannot be ranked together: give this one another hydra.sweeper.study_name"
    if before is None:
        raise ValueError(f"{where} has trials that do not say what they asked; {remedy}")
    old, new = _flat(before), _flat(asked)
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    shown = [f"{key} was {old.get(key, 'not there')}, is {new.get(key, 'not there')}" for key in changed[:_SHOWN]]
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    raise ValueError(f"{where} asked something else: {'; '.join(shown)}{more}; {remedy}")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def _sampler(optuna: Any, sampler: DictConfig, num_trials: int) -> Any:
    """Seeded by the number of earlier trials too, so that a search that goes on does not draw the same ones again."""
    if sampler.name not in _SAMPLERS:
        raise ValueError(f"hydra.sweeper.sampler.name={sampler.name} must be one of {', '.join(_SAMPLERS)}")
    options = {"seed": None if sampler.seed is None else sampler.seed + num_trials}
    if sampler.population_size is not None:
        if sampler.name != "nsgaii":
            raise ValueError(
                f"hydra.sweeper.sampler.population_size={sampler.population_size} belongs to nsgaii; "
                f"set null for {sampler.name}"
            )
        options["population_size"] = sampler.population_size
    return getattr(optuna.samplers, _SAMPLERS[sampler.name])(**options)


def _optuna() -> Any:
    try:
        import optuna
        from optuna.distributions import IntDistribution  # noqa: F401 (Optuna 2 has none)
    except ImportError as error:
        raise ValueError(
            f"hydra/sweeper=search needs a current Optuna ({error}): pip install -c constraints.txt '.[sweep]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # migrations of the storage
    return optuna
