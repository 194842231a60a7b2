"""The Python API's keyword arguments as Hydra overrides, so that both ways of composing are one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from framework.config.compose import CONF_DIR
from framework.config.quote import quote
from framework.config.schema import Config, EngineConfig
from framework.interfaces.settings import LocalSettings

_KEYS = {field.name: "engine" for field in dataclasses.fields(EngineConfig)}
_KEYS |= {field.name: "executor" for field in dataclasses.fields(LocalSettings)}
_GROUPS = [field.name for field in dataclasses.fields(Config) if field.name not in ("model", "seed")]


def api_overrides(model: str, keywords: Mapping[str, Any]) -> list[str]:
    """Overrides for `LLM(model, **keywords)`.

    Raises:
        ValueError: a keyword that is neither a group, an engine or executor key, nor `overrides`.
    """
    presets = sorted(path.stem for path in (CONF_DIR / "model").glob("*.yaml"))
    if model in presets:
        result = [f"model={model}"]
    else:
        result = ["model=custom", f"model.path={quote(model)}", f"model.name={quote(model)}"]
    for key, value in keywords.items():
        if key == "overrides":
            result += value
        elif key == "plugins":
            result.append(f"plugins={quote(value)}")
        elif key == "model":
            raise ValueError("model was given twice")
        elif key in _KEYS and not isinstance(value, Mapping):
            result.append(f"{_KEYS[key]}.{key}={quote(value)}")
        elif key in _GROUPS:
            result += _group(key, value)
        else:
            known = ", ".join(sorted({*_KEYS, *_GROUPS, "overrides"}))
            raise ValueError(f"LLM(...) has no keyword {key!r}; it takes {known}, or overrides=['a.b=c', ...]")
    return result


def _group(key: str, value: Any) -> list[str]:
    if isinstance(value, str):
        return [f"{key}={value}"]
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}={value!r}: pass the name of a choice, or a mapping of its keys")
    chosen = [f"{key}={value['name']}"] if "name" in value else []
    return chosen + [f"{key}.{inner}={quote(v)}" for inner, v in value.items() if inner != "name"]
