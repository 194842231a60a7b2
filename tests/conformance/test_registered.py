"""Every registered plugin keeps the rules of its interface: a new file is covered the moment it is saved."""

from __future__ import annotations

import pytest

from framework.conformance import Budget, assert_conforms
from framework.conformance.run import KINDS
from framework.registry import REGISTRIES
from framework.registry.discovery import discover
from tests.triton_interpreter import INTERPRETED

discover()

PLUGINS = [f"{kind}={entry.name}" for kind in KINDS for entry in REGISTRIES[kind].entries() if entry.cls is not None]
SMALL = Budget(num_examples=3, search_s=0.4, shrink_s=2.0, num_cost_blocks=20_000, num_draws=5_000)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_conforms(plugin: str) -> None:
    if plugin == "attention=triton" and INTERPRETED:
        pytest.skip("the interpreter takes minutes for these batches; tests/attention has smaller ones")
    assert_conforms(plugin, budget=SMALL)
