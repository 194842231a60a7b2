"""An engine that is ready to run, wherever its steps run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.engine.engine import Engine
from framework.engine.fleet import Fleet
from framework.models.config import ModelConfig
from framework.records.metrics.utilization import DevicePeaks, ModelCosts

if TYPE_CHECKING:  # a simulation does not wait for torch
    from framework.models.loading.tokenizer import Tokenizer


@dataclass(slots=True)
class BuiltEngine:
    """An engine and what was found out while it was built."""

    engine: Engine | Fleet
    tokenizer: Tokenizer | None
    model_config: ModelConfig
    eos_token_ids: tuple[int, ...]
    max_model_len: int
    effective: dict[str, object]
    """The choices that were made where the configuration left something open."""
    costs: ModelCosts
    """The costs of the ranks that `peaks` covers: one real rank, or all simulated ones."""
    peaks: DevicePeaks | None
    """None on a CPU and for layers with windows, where utilisation is not reported."""
    startup_s: float
    """Seconds from the start of building to the end of warm-up, without imports."""
    after_run: Callable[[], dict[str, object]] = dict
    """What only a run can tell. It is added to `effective` at the end of the run."""

    @property
    def single_engine(self) -> Engine:
        """The only engine, if this is not a fleet."""
        assert isinstance(self.engine, Engine)
        return self.engine
