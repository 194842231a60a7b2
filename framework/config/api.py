"""The Python API's keyword arguments as Hydra overrides, so that both ways of composing are one."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from framework.config.compose import CONF_DIR
from framework.config.familiar import FAMILIAR, own_names
from framework.config.quote import quote
from framework.config.schema import Config, EngineSection
from framework.interfaces.settings import LocalSettings

_KEYS = {field.name: "engine" for field in dataclasses.fields(EngineSection)}
_KEYS |= {field.name: "executor" for field in dataclasses.fields(LocalSettings)}
_GROUPS = [field.name for field in dataclasses.fields(Config) if field.name not in ("model", "seed")]


def api_overrides(model: str, keywords: Mapping[str, Any]) -> list[str]:
    """Overrides for `LLM(model, **keywords)`.

    Raises:
        ValueError: a keyword that is neither a group, an engine or executor key, `overrides`, nor vLLM's name of
            something that is served.
    """
    if not isinstance(model, str) or not model:
        raise ValueError(f"model={model!r} must be the name of a preset, a folder, a hub id or a .gguf file")
    presets = sorted(path.stem for path in (CONF_DIR / "model").glob("*.yaml"))
    if model in presets:
        result = [f"model={model}"]
    else:
        result = ["model=custom", f"model.path={quote(model)}", f"model.name={quote(model)}"]
    for key, value in own_names(keywords).items():
        if key == "overrides":
            if isinstance(value, str):
                raise ValueError(f"overrides={value!r} must be a list; pass overrides=[{value!r}]")
            result += value
        elif key == "plugins":
            result.append(f"plugins={quote(value)}")
        elif key == "model":
            result += [f"model.{inner}={quote(v)}" for inner, v in value.items()]
        elif key in _KEYS and not isinstance(value, Mapping):
            result.append(f"{_KEYS[key]}.{key}={quote(value)}")
        elif key in _GROUPS:
            result += _group(key, value)
        else:
            known = ", ".join(sorted({*_KEYS, *_GROUPS, "overrides"}))
            near = difflib.get_close_matches(key, [*_KEYS, *_GROUPS, *FAMILIAR], n=1)
            hint = f"did you mean {near[0]}? It" if near else "it"
            raise ValueError(f"LLM(...) has no keyword {key!r}; {hint} takes {known}, or overrides=['a.b=c', ...]")
    return result


def _group(key: str, value: Any) -> list[str]:
    if isinstance(value, str):
        return [f"{key}={value}"]
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}={value!r}: pass the name of a choice, or a mapping of its keys")
    chosen = [f"{key}={value['name']}"] if "name" in value else []
    return chosen + [f"{key}.{inner}={quote(v)}" for inner, v in value.items() if inner != "name"]
