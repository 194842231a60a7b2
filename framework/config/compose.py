"""Composes and checks a configuration from overrides, for the Python API and tests. In `run.py` Hydra composes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from framework.config.check import check
from framework.config.credentials import refuse_credentials
from framework.config.explain import explain
from framework.config.quote import quote
from framework.config.schema import store_schema
from framework.registry import discovery

CONF_DIR = discovery.ROOT / "conf"


def compose(overrides: Sequence[str] = (), config_name: str = "config") -> DictConfig:
    """Compose and check one configuration, as `python run.py OVERRIDES` does. Works inside a running Hydra app too.

    Raises:
        ValueError: unknown group, key, choice or type, or a value out of its limits; names the choices.
    """
    return compose_with_hydra(overrides, config_name)[0]


def compose_with_hydra(overrides: Sequence[str] = (), config_name: str = "config") -> tuple[DictConfig, DictConfig]:
    """`compose`, and Hydra's own part beside it: the choice of each group, the overrides, the folder of a run.

    Raises:
        ValueError: as `compose`.
    """
    overrides = prepare(overrides)
    global_hydra = GlobalHydra.instance()
    running = global_hydra.hydra
    global_hydra.clear()
    try:
        with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            full = hydra.compose(config_name, overrides=overrides, return_hydra_config=True)
            run_dir = full.hydra.run.dir
        own = full.hydra
        OmegaConf.set_readonly(own, False)
        own.run.dir = run_dir
        cfg = OmegaConf.masked_copy(full, [str(key) for key in full if key != "hydra"])
        check(cfg)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error)) from error
    finally:
        GlobalHydra.instance().hydra = running
    return cfg, own


def prepare(overrides: Sequence[str]) -> list[str]:
    """Do what has to happen before Hydra composes: schema, plugins, resolvers. It may be repeated.

    Returns `overrides` with full paths in `plugins=[...]`, since a process of another folder may read them.

    Raises:
        ValueError: an entry of `plugins=[...]` among `overrides` does not exist or fails to import; a password or token
            in an override, which Hydra would write down.
    """
    refuse_credentials((text.partition("=")[0].lstrip("+~"), text.partition("=")[2]) for text in overrides)
    OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), replace=True, use_cache=True)
    store_schema()
    overrides, plugins = list(overrides), list[str]()
    for index, text in enumerate(overrides):
        if text.lstrip("+").startswith("plugins="):
            try:
                value = OverridesParser.create().parse_override(text).value()
            except HydraException as error:
                raise ValueError(explain(error)) from error
            if not isinstance(value, list):
                raise ValueError(f"{text}: plugins takes a list, such as plugins=[path/to/mine.py,module.name]")
            plugins = [_full_path(str(item)) for item in value]
            overrides[index] = f"{text.partition('=')[0]}={quote(plugins)}"
    discovery.discover(plugins)  # composition needs their types
    return overrides


def _full_path(item: str) -> str:
    """The full path of a file or folder. The name of a module is returned as it is."""
    path = Path(item).expanduser()
    return str(path.resolve()) if path.exists() else item
