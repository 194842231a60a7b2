"""Every key of every choice: a value of a wrong type, and one out of range, are refused by key, value and limit."""

from __future__ import annotations

import functools
from typing import Any, get_args, get_origin

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from framework.config.check import check
from framework.config.compose import compose
from framework.config.explain import explain
from framework.config.schema import CHOICES
from framework.registry import CHOSEN, REGISTRIES

ANY_NUMBER = {
    "workload.greedy_priority": "an order, which has no end",
}
"""Numbers whose only limit is 64 bits, and why."""
WRONG: dict[str, Any] = {"int": "many", "float": "much", "bool": "maybe", "str": ["x"], "list": 5, "dict": 5}


@functools.cache
def base() -> DictConfig:
    return compose(["model=tiny", "executor=local"])


def choices() -> list[tuple[str, str]]:
    """(group, choice) of everything that has keys of its own; ("", "") for what every configuration has."""
    base()  # finds the plugins
    of_plugins = [(kind, name) for kind, registry in CHOSEN.items() for name in registry.names()]
    return [("", ""), *of_plugins]


@functools.cache
def composed(group: str, choice: str) -> DictConfig:
    cfg = base().copy()
    if group:
        node = ConfigStore.instance().load(f"{group}/{choice}.yaml").node
        with open_dict(cfg):
            cfg[group] = node
        if group == "workload" and "path" in cfg.workload.keys():  # noqa: SIM118 (one without a value counts too)
            cfg.workload.path = __file__  # it has to be there
    return cfg


def keys(group: str, choice: str) -> list[str]:
    """Full names of the leaves that this choice has."""
    cfg = composed(group, choice)

    def leaves(node: DictConfig, path: str) -> list[str]:
        found = []
        for key in map(str, node):
            full, child = (f"{path}.{key}" if path else key), node._get_node(key)
            is_tree = isinstance(child, DictConfig) and not child._is_none() and full not in ("model.config",)
            found += leaves(child, full) if is_tree else [full]
        return found

    if group:
        return [key for key in leaves(cfg[group], group) if key != f"{group}.name"]
    return [key for key in leaves(cfg, "") if key.partition(".")[0] not in REGISTRIES and not key.endswith(".name")]


_NUMBER = ("int", "float")
EVERY = [(group, choice, key) for group, choice in choices() for key in keys(group, choice)]


def kind_of(cfg: DictConfig, key: str) -> str:
    """int, float, bool, str, list or dict, whether or not it may be null."""
    parent, _, name = key.rpartition(".")
    node = (OmegaConf.select(cfg, parent) if parent else cfg)._get_node(name)
    kind = node._metadata.ref_type
    if kind is Any:  # a leaf of the root, which composition leaves untyped once its value is checked
        return type(node._value()).__name__
    inner = [one for one in get_args(kind) if one is not type(None)]
    kind = inner[0] if inner and get_origin(kind) not in (list, dict) else kind
    return (get_origin(kind) or kind).__name__


def refusal(group: str, choice: str, key: str, value: Any) -> str:
    """The message about `value` from composition or from the plugin's constructor; empty if there is none."""
    cfg = composed(group, choice).copy()
    try:
        if cfg._get_node(key) is not None and cfg._get_node(key)._metadata.ref_type is Any:
            compose([f"{key}={value}"])
        OmegaConf.update(cfg, key, value)
        check(cfg)
        _construct(cfg, group)
    except OmegaConfBaseException as error:
        return f"{key}={value}: {explain(error)}"  # Hydra begins with the override
    except ValueError as error:
        return str(error)
    return ""


def _construct(cfg: DictConfig, group: str) -> None:
    import torch

    from framework.interfaces.cost_model import Deployment

    given: dict[str, tuple[Any, ...]] = {
        "sampler": (500, torch.device("cpu")),
        "cost_model": (Deployment.__new__(Deployment),),
    }
    if group in REGISTRIES and group not in ("attention", "tracker") and cfg[group].name != "profiled":
        REGISTRIES[group].build(cfg[group], *given.get(group, ()))


@pytest.mark.parametrize(("group", "choice", "key"), EVERY)
def test_a_wrong_type(group: str, choice: str, key: str) -> None:
    kind = kind_of(composed(group, choice), key)
    value = WRONG[kind] if key not in CHOICES else ["x"]
    said = refusal(group, choice, key, value)
    shown = str(value[0] if isinstance(value, list) else value)
    assert key.rpartition(".")[2] in said, said
    assert shown in said, said


NUMBERS = [(group, choice, key) for group, choice, key in EVERY if kind_of(composed(group, choice), key) in _NUMBER]


@pytest.mark.parametrize(("group", "choice", "key"), NUMBERS)
def test_a_number_out_of_range(group: str, choice: str, key: str) -> None:
    value: Any = 2**64 if key in ANY_NUMBER else -1
    said = refusal(group, choice, key, value)
    assert key.rpartition(".")[2] in said, f"{key}={value} is taken; give it a limit, or add it to ANY_NUMBER: {said}"
    assert str(value) in said, said
    if kind_of(composed(group, choice), key) == "float":
        assert f"{key}=nan" in refusal(group, choice, key, float("nan"))


@pytest.mark.parametrize("key", sorted(CHOICES))
def test_a_value_that_is_not_among_the_choices(key: str) -> None:
    said = refusal("", "", key, "nonsense")
    assert f"{key}=nonsense: 'nonsense' is not one of " in said


def test_it_is_what_the_command_line_says() -> None:
    for key in ("engine.max_num_seqs", "workload.num_requests"):
        with pytest.raises(ValueError, match=rf"{key}=many") as caught:
            compose(["workload=synthetic", f"{key}=many"])
        what = f"{key}=many is not an integer"
        assert what in str(caught.value)
        assert what in refusal(*(("", "") if key.startswith("engine") else ("workload", "synthetic")), key, "many")
