"""A checked configuration as types: what the code below the command line takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from framework.config.schema import (
    CalibrateConfig,
    CompileConfig,
    EngineSection,
    MetricsConfig,
    ModelSection,
    RecordConfig,
    ServingConfig,
    SLOConfig,
    StudyConfig,
)
from framework.interfaces.settings import require


class PluginChoice(dict[str, Any]):
    """The name of a plugin (`name`) and its parameters, which can be read as attributes too."""

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"{self.get('name')} has no parameter {key}") from None


@dataclass(kw_only=True)
class Settings:
    """A whole configuration. Its sections check their own values, and it checks those that exclude each other."""

    model: ModelSection
    workload: PluginChoice
    scheduler: PluginChoice
    eviction: PluginChoice
    attention: PluginChoice
    sampler: PluginChoice
    graph: PluginChoice
    cost_model: PluginChoice
    router: PluginChoice
    predictor: PluginChoice
    executor: PluginChoice
    tracker: PluginChoice
    engine: EngineSection
    compile: CompileConfig
    calibrate: CalibrateConfig
    record: RecordConfig
    slo: SLOConfig
    serving: ServingConfig
    metrics: MetricsConfig
    seed: int
    objective: list[str]
    study: StudyConfig
    plugins: list[str]

    def __post_init__(self) -> None:
        found = self.model.path is not None or self.model.config is not None
        require(found, "model.path", None, "there is no model to load", "model.path=FOLDER_OR_HUB_ID_OR_GGUF")
        level, mode, graph = self.compile.level, self.compile.mode, self.graph.name
        useless = "nothing is left to compile with executor.kernels=fused"
        compiles = level == "off" or self.executor.get("kernels") != "fused"
        require(compiles, "compile.level", level, useless, "executor.kernels=auto")
        twice = f"captures graphs of its own, which graph={graph} does already"
        require(mode != "reduce-overhead" or graph in ("eager", "auto"), "compile.mode", mode, twice, "graph=eager")

    def __getitem__(self, kind: str) -> PluginChoice:
        """The plugin that was chosen of a kind, such as `scheduler`."""
        choice = getattr(self, kind)
        assert isinstance(choice, PluginChoice), f"{kind} is not a kind of plugins"
        return choice

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from plain values, in which sections and plugins are dicts, as `dataclasses.asdict` gives them.

        Raises:
            ValueError: a value is out of its limits, or two exclude each other.
        """
        typed = {}
        for key, value in values.items():
            if key in _SECTIONS:
                typed[key] = _SECTIONS[key](**value)
            else:
                typed[key] = PluginChoice(value) if isinstance(value, dict) else value
        return cls(**typed)


_SECTIONS: dict[str, Callable[..., Any]] = {
    "model": ModelSection,
    "engine": EngineSection,
    "compile": CompileConfig,
    "calibrate": CalibrateConfig,
    "record": RecordConfig,
    "slo": SLOConfig,
    "serving": ServingConfig,
    "metrics": MetricsConfig,
    "study": StudyConfig,
}


def settings_of(cfg: DictConfig) -> Settings:
    """A composed configuration, which has every key of the schema, as types.

    Raises:
        ValueError: as `Settings.of`.
    """
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    return Settings.of(values)
