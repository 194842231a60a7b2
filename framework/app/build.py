"""The only way from a checked configuration to an engine, wherever its steps run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from framework.config.settings import Settings
from framework.registry import EXECUTORS

if TYPE_CHECKING:
    from framework.execution.builder import EngineBuilder
    from framework.execution.built import BuiltEngine


def build(cfg: Settings) -> BuiltEngine:
    """Build the engine that `executor` names. A simulation loads no torch, whose import takes longer than most runs.

    Raises:
        IncompatibleError: plugins, model and machine cannot work together. No weight has been loaded.
        ValueError: a value or a file is wrong in itself.
    """
    builder: EngineBuilder = EXECUTORS.build(cfg.executor)
    return builder.build(cfg)
