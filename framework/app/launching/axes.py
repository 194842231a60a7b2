"""What a sweep varies: the axes of a study's file and of the command line. Each has its values as overrides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from framework.config.quote import short

NULL = "${null}"
"""Stands for null in `choice(...)`, which Hydra refuses there."""


def read_axes(config: DictConfig, arguments: Sequence[str], loader: ConfigLoader | None) -> dict[str, Override]:
    """Every override of the sweep by its key: those of `hydra.sweeper.params`, then those of the command line, which
    replace them.

    Values such as `${seed}` are left for each cell to resolve; Hydra itself would put in those of the base.

    Raises:
        ValueError: a key is given twice on the command line, so that an axis would be dropped.
    """
    params: Any = OmegaConf.to_container(config.hydra.sweeper.params, resolve=False)
    parser = OverridesParser.create(config_loader=loader)
    given = parser.parse_overrides(list(arguments))
    counts = Counter(bare_key(override) for override in given)
    for override in given:
        if counts[key := bare_key(override)] > 1 and override.is_sweep_override():
            both = " and ".join(str(other.input_line) for other in given if bare_key(other) == key)
            raise ValueError(f"{key} is given {counts[key]} times ({both}): only one can hold; leave the others out")
    study = parser.parse_overrides([f"{key}={values}" for key, values in params.items()])
    by_key = {bare_key(override): override for override in study}
    return by_key | {bare_key(override): override for override in given}


def bare_key(override: Override) -> str:
    """The key without `+`, `++` or `~`."""
    return str(override.get_key_element()).lstrip("+~")


def values(override: Override) -> list[str]:
    """The override of each value of an axis (of the ends of an interval). Any other override is returned as it is.

    Hydra's own list drops the quotation marks of `choice('a, b')`.
    """
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if override.is_interval_sweep():
        interval: Any = override.value()
        return [f"{override.get_key_element()}={end}" for end in (interval.start, interval.end)]
    key = override.get_key_element()
    return [f"{key}={'null' if value == NULL else short(value)}" for value in override.sweep_iterator()]
