"""Builds a model from the `model` group of the configuration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from framework.models.config import ModelConfig
from framework.models.decoder import DecoderLM
from framework.models.layers.group import TensorParallelGroup
from framework.models.loading.byte_tokenizer import NUM_BYTE_TOKENS, byte_tokenizer
from framework.models.loading.checkpoint import fill_from_folder
from framework.models.loading.gguf_weights import fill_from_gguf
from framework.models.loading.random_weights import fill_random
from framework.models.loading.read_config import (
    GGUF,
    ModelGroup,
    config_folder,
    load_config,
    model_path,
    plain_config,
    read_config,
    weights_are_random,
)
from framework.models.loading.sizes import check_positions, check_sizes
from framework.models.loading.source import resolve_checkpoint, resolve_tokenizer
from framework.models.loading.tokenizer import Tokenizer, has_tokenizer

__all__ = ["LoadedModel", "load_config", "load_model", "load_tokenizer"]


@dataclass(slots=True, kw_only=True)
class LoadedModel:
    """A model that is ready to run, and what came with it."""

    model: DecoderLM
    config: ModelConfig
    tokenizer: Tokenizer | None
    """The tokenizer. It is None if the checkpoint has none; prompts and answers are then token ids."""
    eos_token_ids: tuple[int, ...]
    """The end tokens of `config.json`, of `generation_config.json`, and of the tokenizer."""
    source: str
    """Where the weights came from, for the record."""
    load_s: float
    gguf_matrices: dict[str, int] | None = None
    """How many matrices of a GGUF file are in which form; see `fill_from_gguf`."""


def load_model(
    cfg: ModelGroup,
    *,
    device: torch.device,
    dtype: torch.dtype,
    group: TensorParallelGroup | None = None,
    max_model_len: int | None = None,
    with_tokenizer: bool = True,
    keep_blocks: bool = False,
) -> LoadedModel:
    """Load the model that `cfg` describes onto `device`.

    Args:
        cfg: the section `model`, or a mapping with `path`, `weights` (auto or random) and optionally `seed` (of random
            weights), `config` (Hugging Face config values, used instead of files when the weights are random),
            `revision` and `tokenizer` (another folder, GGUF file or hub id to take it from, or "byte").
        dtype: of weights and activations, whatever the checkpoint's is.
        group: this rank's place in a tensor-parallel group; each rank reads its slices only.
        max_model_len: the longest sequence, which sizes the table of rotary angles; None for the model's maximum.
        with_tokenizer: False leaves it out, for ranks that see token ids only.
        keep_blocks: leave the matrices of a GGUF file in its blocks where that is possible. The model cannot run before
            its layers have kernels for them, as `optimize_for_cpu` sets them.

    Raises:
        ValueError: for a path that leads nowhere, an unsupported model, or files that don't fit together.
    """
    start = time.perf_counter()
    cfg = plain_config(cfg)
    random = weights_are_random(cfg)
    folder = config_folder(cfg) if random else _checkpoint_folder(cfg)
    config, eos_token_ids = read_config(cfg, folder, max_model_len)
    if not random:
        assert folder is not None
        check_sizes(config, folder)
    check_positions(config, max_model_len)
    tokenizer = _tokenizer(cfg, folder, config) if with_tokenizer else None
    matrices = None
    with torch.inference_mode(False), torch.no_grad():
        model = DecoderLM(config, device=device, dtype=dtype, group=group, max_model_len=max_model_len)
        if random:
            fill_random(model, int(cfg.get("seed") or 0))
        else:
            assert folder is not None
            if folder.suffix == GGUF:
                matrices = fill_from_gguf(model, folder, keep_blocks=keep_blocks)
            else:
                fill_from_folder(model, folder)
    model.finalize()
    model.eval()
    return LoadedModel(
        model=model,
        config=config,
        tokenizer=tokenizer,
        eos_token_ids=_end_tokens(eos_token_ids, tokenizer, config),
        source=f"random(seed={int(cfg.get('seed') or 0)})" if random else str(folder),
        load_s=time.perf_counter() - start,
        gguf_matrices=matrices,
    )


def load_tokenizer(cfg: ModelGroup) -> Tokenizer | None:
    """Load only the tokenizer."""
    cfg = plain_config(cfg)
    folder = config_folder(cfg) if weights_are_random(cfg) else _checkpoint_folder(cfg)
    return _tokenizer(cfg, folder, read_config(cfg, folder, None)[0])


def _checkpoint_folder(cfg: Mapping[str, Any]) -> Path:
    return resolve_checkpoint(model_path(cfg), cfg.get("revision"))


def _tokenizer(cfg: Mapping[str, Any], folder: Path | None, config: ModelConfig) -> Tokenizer | None:
    asked = cfg.get("tokenizer")
    if asked and asked != "byte":
        return _read_tokenizer(resolve_tokenizer(str(asked), None))
    if not asked and folder is not None and (folder.suffix == GGUF or has_tokenizer(folder)):
        return _read_tokenizer(folder)
    if asked == "byte" and config.vocab_size < NUM_BYTE_TOKENS:
        raise ValueError(
            f"model.tokenizer=byte needs a vocabulary of {NUM_BYTE_TOKENS} tokens, this model has {config.vocab_size}; "
            f"set model.tokenizer=null"
        )
    bytes_fit = weights_are_random(cfg) and config.vocab_size >= NUM_BYTE_TOKENS
    return byte_tokenizer() if asked == "byte" or bytes_fit else None


def _read_tokenizer(path: Path) -> Tokenizer:
    if path.suffix != GGUF:
        return Tokenizer.from_folder(path)
    from framework.models.loading.gguf_tokenizer import gguf_tokenizer

    return gguf_tokenizer(path)


def _end_tokens(named: tuple[int, ...], tokenizer: Tokenizer | None, config: ModelConfig) -> tuple[int, ...]:
    """The named end tokens and the tokenizer's EOS, which ends a chat model's turn whether or not a config names it."""
    own = () if tokenizer is None else tokenizer.eos_token_ids
    return tuple(dict.fromkeys(named + tuple(token_id for token_id in own if token_id < config.vocab_size)))
