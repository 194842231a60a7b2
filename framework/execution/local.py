"""The executor that runs a model on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from framework.config.settings import Settings
from framework.execution.builder import EngineBuilder
from framework.interfaces.settings import LocalSettings
from framework.registry import EXECUTORS

if TYPE_CHECKING:
    from framework.execution.built import BuiltEngine


@EXECUTORS.register("local")
class Local(LocalSettings, EngineBuilder):
    """Runs the model on this machine, on its CPU or its GPUs."""

    def build(self, cfg: Settings) -> BuiltEngine:
        from framework.execution.build import build_engine  # loads torch

        return build_engine(cfg)

    @classmethod
    def num_gpus(cls, parameters: Mapping[str, Any], num_available: int) -> int:
        device = parameters.get("device")
        if device == "cpu" or (device == "auto" and not num_available):
            return 0
        return int(parameters.get("tp") or 1)
