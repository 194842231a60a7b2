"""Which family a Hugging Face config belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family
from framework.registry import FAMILIES, discovery


def family_of(config: Mapping[str, Any]) -> tuple[str, Family]:
    """The registered name and the family of a config.

    Raises:
        ValueError: listing the supported ones, or with the error of a family's file that could not be imported.
    """
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list | tuple) or not all(isinstance(name, str) for name in architectures):
        raise ValueError(f"architectures={architectures!r} must be a list of names; correct the config")
    model_type = config.get("model_type")
    name = _find(architectures, model_type)
    if name is None:
        discovery.discover()  # a config may be read before anything was composed
        name = _find(architectures, model_type)
    if name is not None:
        return name, FAMILIES.get(name)()
    if isinstance(model_type, str) and (broken := discovery.broken_for(model_type)):
        raise ValueError(f"the family {model_type} of this config cannot be used: {broken.message()}")
    found = ", ".join(architectures) or f"model_type={model_type!r}"
    supported = ", ".join(sorted(FAMILIES.get(name).architecture for name in FAMILIES.names()))
    raise ValueError(
        f"{found} is not a supported architecture; supported are {supported}. A file in plugins=[...] can add one: "
        f"python -m framework new model NAME"
    )


def _find(architectures: list[str] | tuple[str, ...], model_type: object) -> str | None:
    by_architecture: dict[str, str] = {}
    for entry in FAMILIES.entries():
        architecture = FAMILIES.get(entry.name).architecture
        other = by_architecture.setdefault(architecture, entry.name)
        if other != entry.name:
            raise ValueError(
                f"the families {other} ({FAMILIES.entry(other).file}) and {entry.name} ({entry.file}) both have the "
                f"architecture {architecture}; one of them has to go, or needs another name for it"
            )
    for architecture in architectures:
        # A base model, e.g. LlamaModel, is the same network saved without its LM head.
        causal = f"{architecture.removesuffix('Model')}ForCausalLM" if architecture.endswith("Model") else architecture
        if causal in by_architecture:
            return by_architecture[causal]
    if not architectures and model_type in FAMILIES.names():
        return str(model_type)
    return None
