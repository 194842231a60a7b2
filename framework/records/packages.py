"""Packages that one tracker needs and the rest of the project does not."""

from __future__ import annotations

import importlib.util


def need(module: str, package: str = "") -> None:
    """Find out, before a cell runs, whether `module` can be imported. Nothing is imported.

    Raises:
        ValueError: it is not installed, with the command that does it.
    """
    if importlib.util.find_spec(module) is None:
        package = package or module
        raise ValueError(f"this needs the package {package}, which is not installed: pip install {package}")


def one_line(error: Exception) -> str:
    """The text of a service's error, for a record."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
