"""Composes the named plugins and runs the checks of their kinds."""

from __future__ import annotations

import importlib
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from framework.config.compose import compose
from framework.config.settings import Settings, settings_of
from framework.conformance.kit.finding import Budget, Check, Finding, NotApplicable, Violation
from framework.interfaces.errors import PluginError
from framework.registry import EXECUTORS, REGISTRIES

KINDS = ("scheduler", "eviction", "sampler", "attention", "graph", "cost_model", "router", "predictor", "family")


def check_plugins(overrides: Sequence[str], budget: Budget | None = None) -> dict[str, list[Finding]]:
    """Check every plugin that `overrides` choose, such as `["scheduler=my_policy", "plugins=[./my.py]"]`.

    Returns the findings by `kind=name`.

    Raises:
        ValueError: the overrides do not compose, or choose no plugin.
    """
    chosen = [kind for kind in KINDS if any(re.match(rf"\+?{kind}=", text) for text in overrides)]
    if not chosen:
        raise ValueError(
            f"{' '.join(overrides) or 'nothing'} names no plugin to check; say which, such as scheduler=chunked_prefill"
            f" (kinds: {', '.join(KINDS)})"
        )
    named = {kind: _name(kind, overrides) for kind in chosen if not REGISTRIES[kind].is_chosen}
    cfg = settings_of(compose([text for text in overrides if text.lstrip("+").partition("=")[0] not in named]))
    choices = {kind: {"name": named[kind]} if kind in named else cfg[kind] for kind in chosen}
    return {
        f"{kind}={choice['name']}": run_checks(checks_of(kind, choice, cfg, budget or Budget()))
        for kind, choice in choices.items()
    }


def _name(kind: str, overrides: Sequence[str]) -> str:
    """The plugin of a kind that no configuration has a key for."""
    return [text.partition("=")[2] for text in overrides if text.lstrip("+").startswith(f"{kind}=")][-1]


def assert_conforms(*overrides: str, budget: Budget | None = None) -> None:
    """For a plugin's own test: `assert_conforms("scheduler=my_policy", "plugins=[./my.py]")`.

    Raises:
        AssertionError: listing the rules that do not hold, each with its smallest failing case.
        ValueError: as `check_plugins`.
    """
    findings = check_plugins(overrides, budget)
    broken = [
        f"{plugin}: {finding.rule}\n{finding.detail}"
        for plugin, found in findings.items()
        for finding in found
        if finding.status == "fails"
    ]
    if broken:
        raise AssertionError("\n\n".join(broken))


def checks_of(kind: str, choice: Mapping[Any, Any], cfg: Settings, budget: Budget) -> list[Check]:
    """The checks of the plugin `choice` (its name and parameters) of a kind, among all that `cfg` chooses."""
    module: Any = importlib.import_module(f"framework.conformance.checks.{kind}")  # only this kind's libraries

    def build(*supplied: Any) -> Any:
        return REGISTRIES[kind].build(choice, *supplied)

    checks: Callable[..., list[Check]] = module.checks
    if kind == "cost_model":  # the overrides may say what it is to be checked for
        return checks(choice, build, budget, EXECUTORS.build(cfg.executor).deployment(cfg))
    return checks(choice, build, budget)


def run_checks(checks: Iterable[Check]) -> list[Finding]:
    """Run the checks one after the other. A check of several rules gives a finding for each rule that fails."""
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.append(Finding(check.rule, "holds", check.run()))
        except NotApplicable as reason:
            findings.append(Finding(check.rule, "skipped", str(reason)))
        except Violation as violation:
            findings.append(Finding(violation.rule, "fails", violation.message))
        except PluginError as error:
            findings.append(Finding(check.rule, "fails", str(error)))
        except Exception as error:  # noqa: BLE001 (the plugin's own; the author gets to see it)
            findings.append(Finding(check.rule, "fails", _own_error(error)))
    return findings


def _own_error(error: Exception) -> str:
    text = "".join(traceback.format_exception_only(error)).strip()
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return text + "\n" + "".join(traceback.format_list(frames)).rstrip()
