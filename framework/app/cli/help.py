"""`python run.py --help`, written here because Hydra copies every file of conf/ for each group that it lists."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.config_store import ConfigStore

from framework.app.cli.plugins import describe
from framework.config.compose import CONF_DIR
from framework.config.explain import unknown_option
from framework.registry import REGISTRIES
from framework.toolkit.read_file import read_yaml

_TEMPLATE = CONF_DIR / "hydra" / "help" / "servelab.yaml"


def is_asked_for(arguments: Sequence[str]) -> bool:
    """Whether `arguments` ask for help that this module can give; with keys of Hydra's own, Hydra gives it."""
    return bool({"-h", "--help"} & set(arguments)) and not any(text.startswith("hydra") for text in arguments)


def help_text(arguments: Sequence[str]) -> str:
    """Groups, options and keys, and the parameters of each option that `arguments` choose.

    Raises:
        ValueError: an option that does not exist.
    """
    values = read_yaml(_TEMPLATE)
    assert isinstance(values, dict)
    groups = options()
    text = str(values["template"])
    for name, shown in {
        "${hydra.help.header}": values["header"],
        "${hydra.help.footer}": values["footer"],
        "$APP_CONFIG_GROUPS": "".join(f"{group}: {', '.join(names)}\n" for group, names in groups.items()),
    }.items():
        text = text.replace(name, str(shown))
    chosen = []
    for argument in arguments:
        group, equals, choices = argument.lstrip("+").partition("=")
        for name in choices.split(",") if equals and group in groups else ():
            if name not in groups[group]:
                raise ValueError(unknown_option(group, name, groups[group]))
            if group in REGISTRIES and name in REGISTRIES[group].names():
                chosen.append(_parameters(group, name))
    return "\n".join([*chosen, text]) if chosen else text


def options() -> dict[str, list[str]]:
    """Group -> the names of its options: of plugins and of the files in conf/."""
    store = ConfigStore.instance()
    stored = {group: store.list(group) for group, node in store.repo.items() if isinstance(node, dict)}
    files = {folder.name: [path.name for path in folder.glob("*.yaml")] for folder in CONF_DIR.iterdir()}
    return {
        group: sorted({name.removesuffix(".yaml") for name in (*stored.get(group, ()), *files.get(group, ()))})
        for group in sorted({*stored, *files})
        if group not in ("hydra", "_dummy_empty_config_") and (stored.get(group) or files.get(group))
    }


def _parameters(group: str, name: str) -> str:
    row = describe(REGISTRIES[group].entry(name))
    lines = [f"== {group}={name} ==", "", row["doc"], ""]
    for one in row["parameters"]:
        default = f" = {one['default']}" if "default" in one else " (required)"
        lines.append(f"  {group}.{one['name']}: {one['type']}{default}")
    return "\n".join([*lines, *([] if row["parameters"] else ["  It has no parameters."]), ""])
