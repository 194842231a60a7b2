"""The policies of an engine, built from a configuration as often as they are needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from framework.config.settings import Settings
from framework.interfaces.eviction import EvictionPolicy, NeedsFuture
from framework.interfaces.scheduler import Scheduler
from framework.registry import EVICTIONS, SCHEDULERS


def build_policies(cfg: Settings) -> tuple[Scheduler, EvictionPolicy]:
    """New policies, without a memory of anything."""
    return SCHEDULERS.build(cfg.scheduler), EVICTIONS.build(cfg.eviction)


def renewal(cfg: Settings) -> Callable[[], tuple[Scheduler, EvictionPolicy]] | None:
    """The `renew` argument of `Engine`. None if the eviction policy knows the future, which cannot be told twice."""
    return None if issubclass(EVICTIONS.get(cfg.eviction.name), NeedsFuture) else partial(build_policies, cfg)
