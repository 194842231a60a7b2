"""The policies of one engine."""

from __future__ import annotations

from typing import NamedTuple

from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.predictor import Predictor
from framework.interfaces.scheduler import Scheduler


class Policies(NamedTuple):
    """Each has the private state of its policy, so that an engine needs objects of its own."""

    scheduler: Scheduler
    eviction: EvictionPolicy
    predictor: Predictor | None = None
    """None predicts nothing, and costs nothing."""
