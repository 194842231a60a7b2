"""From sections of a composed configuration to the types that the code below takes."""

from __future__ import annotations

import copy
import dataclasses

from omegaconf import DictConfig

from framework.interfaces.settings import EngineSettings


def engine_settings(cfg: DictConfig) -> EngineSettings:
    """The section `engine` of a whole configuration.

    Raises:
        ValueError: a value out of its limits.
    """
    return EngineSettings(**{field.name: cfg.engine[field.name] for field in dataclasses.fields(EngineSettings)})


def with_sizes(cfg: DictConfig, sizes: dict[str, int]) -> DictConfig:
    """A copy of `cfg` with these values of `engine`, so that every rank takes the same."""
    cfg = copy.deepcopy(cfg)
    for name, value in sizes.items():
        cfg.engine[name] = value
    return cfg
