"""What types cannot say about a configuration: choices, limits, and keys that depend on each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from framework.config.credentials import refuse_credentials
from framework.config.explain import valid_keys
from framework.config.schema import CHOICES, Config
from framework.config.settings import Settings, settings_of
from framework.interfaces.settings import require
from framework.registry import CHOSEN, EXECUTORS, REGISTRIES, discovery
from framework.registry.parameters import wrong_choice


def check(cfg: DictConfig) -> Settings:
    """Refuse values with which no engine can be built, and return the others as types.

    Raises:
        ValueError: naming the key, its value, the limit and a remedy.
    """
    for item in cfg.plugins:
        if not discovery.loaded(item):
            raise ValueError(f"plugins=[{item}] comes from a file; give it on the command line, before composition")
    _check_keys(cfg, [f.name for f in dataclasses.fields(Config)], "", "the configuration")
    for section in ("model", "engine", "compile", "calibrate", "record", "slo", "serving", "metrics", "study"):
        schema = OmegaConf.get_type(cfg[section])
        if dataclasses.is_dataclass(schema):
            _check_keys(cfg[section], [f.name for f in dataclasses.fields(schema)], f"{section}.", section)
    _check_missing(cfg)
    check_credentials(cfg)
    _check_numbers(cfg)
    for key, annotation in CHOICES.items():
        value = OmegaConf.select(cfg, key)
        require((wrong := wrong_choice(annotation, value)) is None, key, value, wrong or "", "")
    for kind, registry in CHOSEN.items():
        _check_plugin(cfg, kind, registry.names())
    EXECUTORS.build(cfg.executor)  # checks its values
    settings = settings_of(cfg)  # checks its values
    if not settings.calibrate.enabled:  # its metrics are those of the steps that it measures
        check_objective(settings.objective, settings.metrics.percentiles)
    return settings


def check_credentials(cfg: DictConfig) -> None:
    """Refuse passwords and tokens, before anything of `cfg` is written down.

    Raises:
        ValueError: naming the key and not the value.
    """
    refuse_credentials((key, value) for key, value in _leaves(cfg) if isinstance(value, str))


def check_objective(names: Iterable[str], percentiles: Sequence[float] = (50, 90, 99)) -> None:
    """Refuse a search for a metric that no run with these percentiles measures.

    Raises:
        ValueError: naming the metric, and those that were probably meant.
    """
    for name in names:
        from framework.records.metrics.summary import unknown_metric  # numpy, for searches only

        wrong = unknown_metric(name, percentiles)
        require(wrong is None, "objective", f"[{name}]", wrong or "", "")


def _check_keys(cfg: DictConfig, valid: list[str], prefix: str, where: str) -> None:
    """Keys that were added by force (`+key=`, `++key=`) and mean nothing."""
    for key in map(str, cfg):
        if key not in valid:
            raise ValueError(f"unknown key '{prefix}{key}'" + valid_keys(key, valid, where))


def _check_missing(cfg: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ValueError(f"no value for {', '.join(missing)}: set {missing[0]}=...")


def _leaves(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """Every value that holds no others, resolved, with its full key."""

    def walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
        items: Iterable[tuple[Any, Any]]
        if isinstance(value, dict):
            items = ((f"{path}.{key}" if path else str(key), item) for key, item in value.items())
        elif isinstance(value, list):
            items = ((f"{path}[{index}]", item) for index, item in enumerate(value))
        else:
            yield path, value
            return
        for key, item in items:
            yield from walk(key, item)

    return walk("", OmegaConf.to_container(cfg, resolve=True))


def _check_numbers(cfg: DictConfig) -> None:
    """What no key takes: NaN, integers beyond 64 bits, signed or unsigned, and seeds below 0."""
    require(cfg.seed >= 0, "seed", cfg.seed, "must be at least 0", "0")  # before those that follow it
    for key, value in _leaves(cfg):
        if isinstance(value, float):
            require(value == value, key, value, "must be a number", "")
        elif isinstance(value, int):
            require(-(2**63) <= value < 2**64, key, value, "must have at most 64 bits", "a smaller number")
            is_seed = key.rpartition(".")[2] == "seed"
            require(not is_seed or value >= 0, key, value, "must be at least 0", "0")


def _check_plugin(cfg: DictConfig, kind: str, names: list[str]) -> None:
    group = cfg[kind]
    name = group.get("name") if isinstance(group, DictConfig) else group
    if name not in names:
        raise ValueError(f"{kind}.name={name} does not exist; choose from {', '.join(names)}")
    if (plugin := discovery.broken_for(name)) and plugin.source == REGISTRIES[kind].entry(name).file:
        raise ValueError(f"{kind}={name}: {plugin.message()}")
    parameters = REGISTRIES[kind].entry(name).parameters
    _check_keys(group, ["name", *(parameter.name for parameter in parameters)], f"{kind}.", f"{kind}={name}")
    for parameter in parameters:
        value: Any = group[parameter.name]
        wrong = wrong_choice(parameter.annotation, value)
        require(wrong is None, f"{kind}.{parameter.name}", value, wrong or "", "")
