"""A GGUF file: metadata with its types checked, and tensors under their Hugging Face names."""

from __future__ import annotations

import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from framework.models.layers.quantized import FORMATS, QuantizedRows
from framework.models.loading.gguf_header import BrokenGGUFError, TensorEntry, read_header

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

_TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_PATTERN = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_TOP_PATTERN = re.compile(r"(\w+)\.(weight|bias)")
ROPE_DIVISORS = "rope_freqs.weight"
"""Llama 3.1's scaling of positions: the divisor of each inverse frequency. It is not the weight of a layer."""
_CHUNK = 1 << 18
"""How many numbers are dequantised at once: as many as stay in a core's cache."""


def open_gguf(path: Path) -> GGUFFile:
    """The header of `path`, parsed once for config, tokenizer and weights.

    Raises:
        ValueError: see `GGUFFile`.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}; pass a file") from error
    return _parsed(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1)
def _parsed(path: Path, mtime_ns: int, size: int) -> GGUFFile:
    return GGUFFile(path)


class GGUFFile:
    """The header of a file. Tensors are read when they are asked for.

    Attributes:
        metadata: by key.
        tensors: by their name in the file.

    Raises:
        ValueError: naming the file, if it is missing, truncated, not GGUF or of an unsupported architecture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.metadata, entries = read_header(path)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing") from None
        except OSError as error:
            raise ValueError(f"{path} can't be read: {error.strerror}") from error
        except BrokenGGUFError as error:
            raise ValueError(f"{path} is truncated or not a GGUF file: {error}; download it again") from error
        self.tensors = {entry.name: entry for entry in entries}
        if len(self.tensors) < len(entries):
            raise ValueError(f"{path} is not a whole GGUF file: it has two tensors of one name; download it again")
        self.architecture = self.text("general.architecture")
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"{path}: GGUF architecture {self.architecture!r} is not supported; "
                f"supported are {', '.join(ARCHITECTURES)}"
            )

    def name(self, key: str) -> str:
        """`key` with the file's architecture in the place of `{arch}`."""
        return key.replace("{arch}", self.architecture) if "{arch}" in key else key

    def integer(self, key: str, default: int | None = None) -> int:
        """A metadata value; `{arch}` in the key stands for the file's architecture.

        Raises:
            ValueError: naming file and key, if it is of another type, or absent without a default.
        """
        value = self._get(key, default, "an integer")
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, value, "an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Like `integer`, for a finite number as its author wrote it: 1e-05 for the float32 9.999999747378752e-06."""
        value = self._get(key, default, "a number")
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 3.4e38:
            raise self._wrong(key, value, "a finite number")
        return float(str(np.float32(value)))

    def text(self, key: str, default: str | None = None) -> str:
        """Like `integer`, for a text."""
        value = self._get(key, default, "a text")
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Like `integer`, for true or false."""
        value = self._get(key, default, "true or false")
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def items(self, key: str, kind: type, default: list[Any] | None = None) -> list[Any]:
        """Like `integer`, for a list of `kind`."""
        expected = f"a list of {kind.__name__}"
        value = self._get(key, default, expected)
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise self._wrong(key, value, expected)
        return value

    def has(self, key: str) -> bool:
        return self.name(key) in self.metadata

    def _get(self, key: str, default: Any, expected: str) -> Any:
        value = self.metadata.get(self.name(key), default)
        if value is None:
            raise ValueError(f"{self.path}: the metadata lacks {self.name(key)}, {expected}")
        return value

    def _wrong(self, key: str, value: Any, expected: str) -> ValueError:
        shown = f"a list of {len(value)}" if isinstance(value, list) else repr(value)[:60]
        return ValueError(f"{self.path}: {self.name(key)} is {shown}, not {expected}; use another file of the model")

    def hf_names(self) -> dict[str, str]:
        """Maps the Hugging Face name of each weight to its name in the file.

        Raises:
            ValueError: naming file and tensor, for a name that no layer has.
        """
        return {self._hf_name(name): name for name in self.tensors if name != ROPE_DIVISORS}

    def _hf_name(self, name: str) -> str:
        if (match := _LAYER_PATTERN.fullmatch(name)) and match[2] in _LAYER_NAMES:
            return f"model.layers.{match[1]}.{_LAYER_NAMES[match[2]]}.{match[3]}"
        if (match := _TOP_PATTERN.fullmatch(name)) and match[1] in _TOP_NAMES:
            return f"{_TOP_NAMES[match[1]]}.{match[2]}"
        raise ValueError(
            f"{self.path}: tensor {name} is not supported; use the model's safetensors folder or hub id instead"
        )

    def read(self, name: str) -> np.ndarray:
        """The tensor `name` of the file as float32, dequantised exactly as `gguf.quants.dequantize` does, rows in
        Hugging Face's order.

        Raises:
            ValueError: naming file and tensor, if it reaches beyond the file or has a type that can't be dequantised.
        """
        return self._in_order(name, self._dequantised(self.tensors[name]))

    def blocks(self, name: str) -> QuantizedRows | None:
        """The tensor `name` as it is stored, rows in Hugging Face's order; mapped from the file unless their order
        differs. None if it is no matrix, or its type is not one of `FORMATS`.

        Raises:
            ValueError: naming file and tensor, if it reaches beyond the file.
        """
        entry = self.tensors[name]
        if entry.kind not in FORMATS or len(entry.shape) != 2 or 0 in entry.shape:
            return None
        return QuantizedRows(entry.kind, self._in_order(name, self._raw(entry)))

    def kind_name(self, name: str) -> str:
        """The type of a tensor that was read, as GGUF calls it."""
        from gguf import GGMLQuantizationType

        return GGMLQuantizationType(self.tensors[name].kind).name

    def _in_order(self, name: str, rows: np.ndarray) -> np.ndarray:
        if self.architecture == "llama" and ".attn_q." in name:
            return _unpermute(rows, self.integer("{arch}.attention.head_count"))
        if self.architecture == "llama" and ".attn_k." in name:
            num_heads = self.integer("{arch}.attention.head_count")
            return _unpermute(rows, self.integer("{arch}.attention.head_count_kv", num_heads))
        return rows

    def _raw(self, entry: TensorEntry) -> np.ndarray:
        """The bytes of a tensor, [rows, bytes of a row]."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType  # slow to import, and not needed for the header

        if entry.kind not in GGMLQuantizationType.__members__.values():
            raise ValueError(f"{self.path}: tensor {entry.name} has the unknown type {entry.kind}; download it again")
        kind = GGMLQuantizationType(entry.kind)
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        columns = entry.shape[-1] if entry.shape else 1
        rows = math.prod(entry.shape[:-1])
        row_bytes = columns // per_block * block_bytes
        if columns % per_block or entry.start + rows * row_bytes > self.path.stat().st_size:
            raise ValueError(
                f"{self.path} is truncated or not a GGUF file: tensor {entry.name} of {rows} x {columns} {kind.name} "
                f"reaches beyond its end; download it again"
            )
        if rows * row_bytes == 0:
            return np.empty((rows, row_bytes), np.uint8)
        return np.memmap(self.path, np.uint8, "r", entry.start, (rows, row_bytes))

    def _dequantised(self, entry: TensorEntry) -> np.ndarray:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        raw = self._raw(entry)
        kind, rows, columns = GGMLQuantizationType(entry.kind), len(raw), entry.shape[-1] if entry.shape else 1
        values = np.empty((rows, columns), dtype=np.float32)
        if values.size == 0:
            return values.reshape(entry.shape)
        chunk = max(1, _CHUNK // columns)

        def fill(start: int) -> None:
            values[start : start + chunk] = dequantize(raw[start : start + chunk], kind)

        try:
            # Threads of its own each time: a pool that is kept would be dead in a forked process.
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
                list(threads.map(fill, range(0, rows, chunk)))
        except NotImplementedError:
            raise ValueError(
                f"{self.path}: tensor {entry.name} has type {kind.name}, which the gguf package "
                f"can't dequantise; use another quantisation of the model"
            ) from None
        return values.reshape(entry.shape)


def _unpermute(values: np.ndarray, num_heads: int) -> np.ndarray:
    """Back from llama.cpp's row order (the two rotary halves of a head interleaved) to Hugging Face's."""
    rows, rest = values.shape[0], values.shape[1:]
    return values.reshape(num_heads, rows // num_heads // 2, 2, *rest).swapaxes(1, 2).reshape(values.shape)
