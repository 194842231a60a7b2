"""From overrides to a checked configuration, for the Python API and tests; `run.py` lets Hydra compose."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from framework import discovery
from framework.config.check import check
from framework.config.explain import explain
from framework.config.schema import store_schema

CONF_DIR = discovery.ROOT / "conf"


def compose(overrides: Sequence[str] = (), config_name: str = "config") -> DictConfig:
    """Compose and check one configuration, as `python run.py OVERRIDES` does. Works inside a running Hydra app too.

    Raises:
        ValueError: unknown group, key, choice or type, or a value out of its limits; names the choices.
    """
    prepare(overrides)
    global_hydra = GlobalHydra.instance()
    running = global_hydra.hydra
    global_hydra.clear()
    try:
        with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = hydra.compose(config_name, overrides=list(overrides))
        check(cfg)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error)) from error
    finally:
        GlobalHydra.instance().hydra = running
    return cfg


def prepare(overrides: Sequence[str]) -> None:
    """What has to happen before Hydra composes: schema, plugins, resolvers. Idempotent.

    Raises:
        ValueError: an entry of `plugins=[...]` among `overrides` does not exist or fails to import.
    """
    OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), replace=True, use_cache=True)
    store_schema()
    discovery.discover(requested_plugins(overrides))


def requested_plugins(overrides: Sequence[str]) -> list[str]:
    """The list in `plugins=[...]`, read ahead since composition needs the plugins' types."""
    items: list[str] = []
    for text in overrides:
        if text.lstrip("+").startswith("plugins="):
            try:
                value = OverridesParser.create().parse_override(text).value()
            except HydraException as error:
                raise ValueError(explain(error)) from error
            if not isinstance(value, list):
                raise ValueError(f"{text}: plugins takes a list, such as plugins=[path/to/mine.py,module.name]")
            items = [str(item) for item in value]
    return items
