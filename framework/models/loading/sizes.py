"""Compares the sizes of a config with the tensors of its checkpoint, before memory is taken for them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from framework.models.config import ModelConfig
from framework.models.loading.read_config import GGUF
from framework.models.loading.tensor_files import EMBEDDING, open_tensors, tensor_files

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_QUERY, _KEY, _GATE = (
    f"model.layers.0.{name}.weight" for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj")
)
_HF_KEYS = {
    "layers": "num_hidden_layers",
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
}
_GGUF_KEYS = {
    "layers": "block_count",
    "vocabulary": "vocab_size",
    "hidden": "embedding_length",
    "intermediate": "feed_forward_length",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
}
_BYTES_PER_ANGLE = 4
_HOST_SHARE = 0.5


def check_sizes(config: ModelConfig, checkpoint: Path) -> None:
    """Refuse a config whose sizes are not those of the tensors. Only headers of files are read.

    Args:
        checkpoint: a folder with `config.json`, or a GGUF file.

    Raises:
        ValueError: naming the file of the config, the key, its value, and what the tensors say.
    """
    if checkpoint.suffix == GGUF:
        from framework.models.loading.gguf_file import open_gguf

        file = open_gguf(checkpoint)
        names = file.hf_names()
        shapes = {name: file.tensors[names[name]].shape for name in (EMBEDDING, _QUERY, _KEY, _GATE) if name in names}
        keys = {size: f"{file.architecture}.{key}" for size, key in _GGUF_KEYS.items()}
        where = str(checkpoint)
    else:
        places = tensor_files(checkpoint)
        names = {name: place.name for name, place in places.items()}
        shapes = {}
        for name in (EMBEDDING, _QUERY, _KEY, _GATE):
            if (place := places.get(name)) is not None:
                with open_tensors(place.path) as opened:
                    if place.name in opened.keys():  # noqa: SIM118 (it is not a dict)
                        shapes[name] = tuple(opened.get_slice(place.name).get_shape())
        keys, where = _HF_KEYS, str(checkpoint / "config.json")
    layers = {int(match[1]) for name in names if (match := _LAYER.match(name))}
    _compare(config, max(layers, default=-1) + 1, names, shapes, keys, where)


def _compare(
    config: ModelConfig,
    num_layers: int,
    names: Mapping[str, str],
    shapes: Mapping[str, Sequence[int]],
    keys: Mapping[str, str],
    where: str,
) -> None:
    remedy = "correct it, or download the model again"
    if num_layers and config.num_layers > num_layers:
        raise ValueError(
            f"{where}: {keys['layers']}={config.num_layers}, but there are tensors of {num_layers} layers; {remedy}"
        )
    per_head = f" times {config.head_size} per head"
    for size, name, axis, value, factor in (
        ("vocabulary", EMBEDDING, 0, config.vocab_size, 1),
        ("hidden", EMBEDDING, 1, config.hidden_size, 1),
        ("intermediate", _GATE, 0, config.intermediate_size, 1),
        ("heads", _QUERY, 0, config.num_heads, config.head_size),
        ("kv_heads", _KEY, 0, config.num_kv_heads, config.head_size),
    ):
        shape = shapes.get(name, ())
        if len(shape) == 2 and shape[axis] != value * factor:
            raise ValueError(
                f"{where}: {keys[size]}={value}{per_head if factor > 1 else ''}, but tensor {names[name]} has "
                f"{shape[axis]} {'columns' if axis else 'rows'}; {remedy}"
            )


def check_positions(config: ModelConfig, max_model_len: int | None) -> None:
    """Refuse a number of positions for whose rotary angles this machine has not got the memory.

    Raises:
        ValueError: naming the number and the memory.
    """
    length = max_model_len or config.max_model_len
    needed = length * config.head_size * _BYTES_PER_ANGLE
    has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > has * _HOST_SHARE:
        key = "engine.max_model_len" if max_model_len else "max_position_embeddings"
        raise ValueError(
            f"{key} asks for {length} positions, whose rotary angles alone need {needed / 2**30:.0f} GiB; this machine "
            f"has {has / 2**30:.0f} GiB, of which at most half may go there: set engine.max_model_len to a lower number"
        )
