"""Copies of a configuration with other values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from framework.config.settings import Settings


def with_sizes(cfg: Settings, sizes: Mapping[str, Any]) -> Settings:
    """A copy of `cfg` with these values of `engine`, so that every rank takes the same."""
    return dataclasses.replace(cfg, engine=dataclasses.replace(cfg.engine, **sizes))
