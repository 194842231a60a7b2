"""Says which plugin an exception came out of."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from framework.interfaces.attention import AttentionBackend
from framework.interfaces.cost_model import CostModel
from framework.interfaces.errors import PluginError
from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.graph import GraphStrategy
from framework.interfaces.predictor import Predictor
from framework.interfaces.router import Router
from framework.interfaces.sampler import Sampler
from framework.interfaces.scheduler import Scheduler

_KINDS = {
    Scheduler: "scheduler",
    EvictionPolicy: "eviction policy",
    AttentionBackend: "attention backend",
    Sampler: "sampler",
    GraphStrategy: "graph strategy",
    Router: "router",
    CostModel: "cost model",
    Predictor: "predictor",
}


@contextmanager
def blaming() -> Iterator[None]:
    """An exception out of a plugin's method becomes a `PluginError` that names the plugin."""
    try:
        yield
    except Exception as error:
        if (culprit := blame(error)) is not None:
            raise culprit from error
        raise


def blame(error: Exception) -> PluginError | None:
    """An error that names the innermost plugin that was running; None if none was, or if `error` names it already."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        plugin = frame.f_locals.get("self")
        kind = next((name for base, name in _KINDS.items() if isinstance(plugin, base)), None)
        if kind is not None:
            if isinstance(error, PluginError) and (error.is_named or type(plugin).__name__ in str(error)):
                return None
            place = f"{frame.f_code.co_filename}:{line}"
            return PluginError(f"{kind} {type(plugin).__name__} ({place}): {type(error).__name__}: {error}")
    return None
