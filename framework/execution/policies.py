"""The policies of an engine, built from a configuration as often as they are needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from framework.config.settings import Settings
from framework.interfaces.errors import IncompatibleError
from framework.interfaces.eviction import NeedsFuture
from framework.interfaces.policies import Policies
from framework.interfaces.scheduler import Scheduler
from framework.registry import EVICTIONS, PREDICTORS, SCHEDULERS


def build_policies(cfg: Settings) -> Policies:
    """New policies, without a memory of anything.

    Raises:
        IncompatibleError: the scheduler needs predictions, and there is no predictor.
    """
    scheduler: Scheduler = SCHEDULERS.build(cfg.scheduler)
    predictor = None if cfg.predictor.name == "none" else PREDICTORS.build(cfg.predictor)
    if scheduler.needs_prediction and predictor is None:
        raise IncompatibleError(
            f"scheduler={cfg.scheduler.name} needs predicted output lengths, and predictor=none has none; choose one "
            f"of predictor={','.join(name for name in PREDICTORS.names() if name != 'none')}"
        )
    return Policies(scheduler, EVICTIONS.build(cfg.eviction), predictor)


def renewal(cfg: Settings) -> Callable[[], Policies] | None:
    """The `renew` argument of `Engine`. None if the eviction policy knows the future, which cannot be told twice."""
    return None if issubclass(EVICTIONS.get(cfg.eviction.name), NeedsFuture) else partial(build_policies, cfg)
