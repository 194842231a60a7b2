"""Sections of a configuration as types: they hold what was composed, and refuse bad values wherever they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import OmegaConf

from framework.config.compose import compose
from framework.config.schema import (
    CalibrateConfig,
    CompileConfig,
    Config,
    EngineSection,
    MetricsConfig,
    RecordConfig,
    ServingConfig,
    SLOConfig,
)
from framework.config.settings import PluginChoice, Settings, settings_of
from framework.records.plain import plain


@pytest.mark.parametrize("overrides", [["model=tiny", "seed=7"], ["executor=simulated", "record.timeline=true"]])
def test_they_hold_what_was_composed(overrides: list[str]) -> None:
    cfg = compose(overrides)
    settings = settings_of(cfg)
    assert dataclasses.asdict(settings) == OmegaConf.to_container(cfg, resolve=True)
    assert plain(settings) == OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert Settings.of(dataclasses.asdict(settings)) == settings  # the way to another rank
    assert settings.engine.seed == settings.seed
    assert settings["scheduler"].name == settings.scheduler["name"] == "chunked_prefill"
    with pytest.raises(AttributeError, match="chunked_prefill has no parameter speed"):
        _ = settings.scheduler.speed


def test_every_key_of_the_schema_has_its_place() -> None:
    assert {one.name for one in dataclasses.fields(Settings)} == {one.name for one in dataclasses.fields(Config)}


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        (EngineSection, {"block_size": 12}, "engine.block_size=12: must be a power of two"),
        (CompileConfig, {"mode": "default"}, "compile.mode=default: needs compile.level=ops or model; use null"),
        (CalibrateConfig, {"repeats": 0}, "calibrate.repeats=0: must be at least 1; use 5 or more"),
        (RecordConfig, {"timeline_max_events": 0}, "record.timeline_max_events=0: must be at least 1"),
        (ServingConfig, {"port": 65536}, r"serving.port=65536: must be in \[0, 65535\]"),
        (ServingConfig, {"max_streams": -1}, "serving.max_streams=-1: must be at least 1; use 1024"),
        (ServingConfig, {"read_limit_s": float("inf")}, "serving.read_limit_s=inf: must be above 0"),
        (SLOConfig, {"tpot_s": 0.0}, "slo.tpot_s=0.0: must be above 0; use null for no objective"),
        (MetricsConfig, {"percentiles": [50, 50]}, r"metrics.percentiles=\[50,50\]: must name each once"),
    ],
)
def test_each_section_refuses_bad_values(section: Callable[..., Any], values: dict[str, Any], says: str) -> None:
    section()  # its defaults are fine
    with pytest.raises(ValueError, match=f"^{says}"):
        section(**values)


def test_what_excludes_each_other_is_refused_in_code_as_on_the_command_line() -> None:
    settings = settings_of(compose(["model=tiny"]))
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"compile": CompileConfig(level="ops"), "executor": PluginChoice(name="local", kernels="fused")},
         ["compile.level=ops", "executor.kernels=fused"]),
        ({"compile": CompileConfig(level="ops", mode="reduce-overhead"), "graph": PluginChoice(name="full")},
         ["compile.level=ops", "compile.mode=reduce-overhead", "graph=full"]),
        ({"model": dataclasses.replace(settings.model, config=None)}, ["model.config=null"]),
    ]  # fmt: skip
    for changes, overrides in cases:
        with pytest.raises(ValueError, match="; use ") as here:
            dataclasses.replace(settings, **changes)
        with pytest.raises(ValueError, match="; use ") as there:
            compose(["model=tiny", *overrides])
        assert str(here.value) == str(there.value)
