"""One clear message from what Hydra and OmegaConf raise while composing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from hydra.errors import InstantiationException, MissingConfigException
from omegaconf import Container, DictConfig
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from framework.registry import discovery

IN_EXTRA = ("ray", "submitit_local", "submitit_slurm")
"""Launchers of Hydra's own, which come with the extra `sweep`."""

_TYPES = (
    (r"Value '(.*)' of type '.*' could not be converted to Integer", "an integer"),
    (r"Value '(.*)' of type '.*' could not be converted to Float", "a number"),
    (r"Value '(.*)' is not a valid bool \(type .*\)", "true or false"),
    (r"Cannot convert '.*' to string: '(.*)'", "text"),
)
"""OmegaConf's messages about a value of the wrong type, and the right one in words"""


def explain(error: BaseException) -> str:
    """What is wrong in `error`, which key or choice, and what would be right."""
    inner = error.__cause__ or error.__context__
    if isinstance(error, InstantiationException) and isinstance(inner, ValueError):
        return str(inner)  # of a launcher or sweeper, about a value of its own
    cause = inner if isinstance(inner, OmegaConfBaseException) else error
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        name = error.missing_cfg_file.rpartition("/")[2]
        if name in IN_EXTRA:
            what = error.missing_cfg_file
            return f"{what} is in packages that are not installed: pip install -c constraints.txt '.[sweep]'"
        plugin = discovery.broken_for(name)
        if plugin is not None:
            return f"{error.missing_cfg_file.replace('/', '=')}: {plugin.message()}"
        if error.options:
            return unknown_option(error.missing_cfg_file.rpartition("/")[0], name, error.options)
    if _is_unknown_key(cause):
        file = re.match(r"In '.*?': ", str(error))  # the mistake is in a preset, not on the command line
        return (file[0] if file else "") + _unknown_key(cause)
    if isinstance(cause, OmegaConfBaseException):
        if (wrong := _wrong_type(error) or _wrong_type(cause)) is not None:
            file = re.match(r"In '.*?': ", str(error))
            return (file[0] if file else "") + wrong
        return f"{_line(error)}: {_line(cause)}" if cause is not error else _line(cause)
    return str(error)


def is_unknown_key(error: BaseException) -> bool:
    """Whether composition failed because of a key that the chosen options do not have."""
    inner = error.__cause__ or error.__context__
    return _is_unknown_key(inner if isinstance(inner, OmegaConfBaseException) else error)


def _is_unknown_key(error: BaseException) -> bool:
    in_struct = isinstance(error, OmegaConfBaseException) and "not in" in str(error) and error.parent_node is not None
    return isinstance(error, ConfigKeyError) or in_struct


def _unknown_key(error: BaseException) -> str:
    assert isinstance(error, OmegaConfBaseException)
    key, parent = str(error.key), error.parent_node
    message = f"unknown key '{error.full_key or key}'"
    if not isinstance(parent, DictConfig):
        return f"{message}: {_line(error)}"
    return message + valid_keys(key, [str(name) for name in parent if name != "hydra"], _path(parent))


def valid_keys(key: str, valid: Sequence[str], where: str) -> str:
    """The end of a message about an unknown `key` of `where`: what was probably meant, and all that exist."""
    close = difflib.get_close_matches(key, valid, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"{hint}; {where} has the keys: {', '.join(valid)}"


def unknown_option(group: str, name: str, options: Sequence[str]) -> str:
    """That `group=name` does not exist, what was probably meant, and all options."""
    close = difflib.get_close_matches(name, options, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"{group}={name} does not exist{hint}; {group} has the options: {', '.join(sorted(options))}"


def _wrong_type(error: BaseException) -> str | None:
    """Key, value and type in our words, if that is what OmegaConf says of it."""
    text = str(error).partition("\n")[0]
    for pattern, kind in _TYPES:
        if (found := re.fullmatch(pattern, text)) and (key := getattr(error, "full_key", None)):
            return f"{key}={found[1]} is not {kind}"
    return None


def _path(node: Container) -> str:
    path = node._get_full_key(None)
    choice = node.get("name") if isinstance(node, DictConfig) and "name" in node else None
    return (f"{path}={choice}" if choice else path) or "the configuration"


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("object_type=", "reference_type=")))
