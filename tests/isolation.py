"""Keeps plugins that a test registers, and those that it breaks, out of the tests after it."""

from __future__ import annotations

import copy

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from framework.registry import REGISTRIES, discovery


@pytest.fixture(autouse=True)
def _same_plugins_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    discovery.discover()  # else those that a test finds first would be taken back with its own
    Plugins.instance()  # likewise for what Hydra's own plugins store at first use
    store = ConfigStore.instance()
    monkeypatch.setattr(discovery, "_broken", dict(discovery._broken))
    monkeypatch.setattr(discovery, "_extra", set(discovery._extra))
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    groups = {name: copy.copy(group) for name, group in store.repo.items()}
    monkeypatch.setattr(store, "repo", groups)
