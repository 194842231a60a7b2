"""Name -> class: what can be chosen, where it was found, and the parameters that it takes."""

from framework.registry.registry import (
    ATTENTIONS,
    COST_MODELS,
    EVICTIONS,
    GRAPHS,
    REGISTRIES,
    ROUTERS,
    SAMPLERS,
    SCHEDULERS,
    TRACKERS,
    WORKLOADS,
    Entry,
    Registry,
    differences,
    fingerprint,
    modules,
    plugin_hashes,
)

__all__ = [
    "ATTENTIONS",
    "COST_MODELS",
    "EVICTIONS",
    "GRAPHS",
    "REGISTRIES",
    "ROUTERS",
    "SAMPLERS",
    "SCHEDULERS",
    "TRACKERS",
    "WORKLOADS",
    "Entry",
    "Registry",
    "differences",
    "fingerprint",
    "modules",
    "plugin_hashes",
]
