"""The executor that times steps and does not run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from framework.config.settings import Settings
from framework.execution.builder import EngineBuilder
from framework.interfaces.cost_model import Deployment
from framework.interfaces.settings import SimulatedSettings
from framework.registry import EXECUTORS

if TYPE_CHECKING:
    from framework.execution.built import BuiltEngine


@EXECUTORS.register("simulated")
class Simulated(SimulatedSettings, EngineBuilder):
    """Asks a cost model how long each step takes, on a virtual clock: no model, no weights, no tokens."""

    needs_token_ids = False
    is_simulated = True

    def build(self, cfg: Settings) -> BuiltEngine:
        from framework.simulation.build import build_simulated  # not needed to list the plugins

        return build_simulated(cfg)

    def deployment(self, cfg: Settings) -> Deployment | None:
        from framework.simulation.build import read_deployment

        return read_deployment(cfg)
