"""The files of `conf/` as they were when the sweep began."""

from __future__ import annotations

import copy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.plugins.config_source import ConfigResult


def freeze_presets(loader: ConfigLoader) -> None:
    """Let `loader` read each file once: a preset that is edited while the sweep runs changes no later cell."""
    assert isinstance(loader, ConfigLoaderImpl)
    if not isinstance(loader.repository, _ReadOnce):
        loader.repository = _ReadOnce(loader.repository)  # type: ignore[assignment]


class _ReadOnce(CachingConfigRepository):
    def __init__(self, delegate: IConfigRepository, cache: dict[str, ConfigResult | None] | None = None) -> None:
        super().__init__(delegate)
        if cache is not None:
            self.cache = cache

    def __deepcopy__(self, memo: dict[int, Any]) -> _ReadOnce:
        return _ReadOnce(self.delegate, self.cache)  # Hydra copies the repository for each composition

    def load_config(self, config_path: str) -> ConfigResult | None:
        return copy.deepcopy(super().load_config(config_path))  # composition changes what it is given
