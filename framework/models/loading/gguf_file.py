"""A GGUF file as a Hugging Face checkpoint: config values, and tensors under their Hugging Face names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

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


class GGUFFile:
    """An open file.

    Raises:
        ValueError: naming the file, if it is missing, truncated, not GGUF or of an unsupported architecture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = GGUFReader(path)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing") from None
        except (ValueError, IndexError, KeyError, OverflowError) as error:  # all that its parser meets in broken bytes
            raise ValueError(f"{path} is truncated or not a GGUF file: {error}") from error
        self.architecture = self.get("general.architecture")
        if self.architecture not in _ARCHITECTURES:
            raise ValueError(
                f"{path}: GGUF architecture {self.architecture!r} is not supported; "
                f"supported are {', '.join(_ARCHITECTURES)}"
            )

    def get(self, key: str, default: Any = None) -> Any:
        """A metadata value; `{arch}` in the key stands for the file's architecture."""
        name = key.replace("{arch}", self.architecture) if "{arch}" in key else key
        field = self._reader.get_field(name)
        return default if field is None else field.contents()

    def require(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise ValueError(f"{self.path}: the metadata lacks {key.replace('{arch}', str(self.architecture))}")
        return value

    def config(self) -> dict[str, Any]:
        """The values of a Hugging Face `config.json`."""
        num_heads = self._count("{arch}.attention.head_count")
        hidden_size = self._count("{arch}.embedding_length")
        tensor_names = {tensor.name for tensor in self._reader.tensors}
        is_bfloat16 = any(tensor.tensor_type.name == "BF16" for tensor in self._reader.tensors)
        config = {
            "architectures": [_ARCHITECTURES[self.architecture]],
            "model_type": self.architecture,
            "hidden_act": "silu",
            "dtype": "bfloat16" if is_bfloat16 else "float32",
            "vocab_size": self.get("{arch}.vocab_size") or len(self.require("tokenizer.ggml.tokens")),
            "hidden_size": hidden_size,
            "intermediate_size": self._count("{arch}.feed_forward_length"),
            "num_hidden_layers": self._count("{arch}.block_count"),
            "num_attention_heads": num_heads,
            "num_key_value_heads": self.get("{arch}.attention.head_count_kv", num_heads),
            "head_dim": self.get("{arch}.attention.key_length", hidden_size // num_heads),
            "max_position_embeddings": self._count("{arch}.context_length"),
            "rms_norm_eps": _shortest(self.require("{arch}.attention.layer_norm_rms_epsilon")),
            "tie_word_embeddings": "output.weight" not in tensor_names,
            "rope_parameters": self._rope(),
            "bos_token_id": self.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.get("tokenizer.ggml.eos_token_id"),
        }
        if self.architecture != "qwen2":
            config["attention_bias"] = "blk.0.attn_q.bias" in tensor_names
        if window := self.get("{arch}.attention.sliding_window"):
            if self.architecture == "llama":  # llama.cpp has no architecture of its own for Mistral
                config |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
            config |= {"sliding_window": window, "use_sliding_window": True, "max_window_layers": 0}
        return config

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Hugging Face name and float array of every tensor, dequantised exactly as `gguf.quants.dequantize` does.

        Raises:
            ValueError: naming file and tensor, for an unknown name or a type that can't be dequantised.
        """
        num_heads = self._count("{arch}.attention.head_count")
        num_kv_heads = self.get("{arch}.attention.head_count_kv", num_heads)
        for tensor in self._reader.tensors:
            name = self._hf_name(tensor.name)
            try:
                values = dequantize(tensor.data, tensor.tensor_type)
            except NotImplementedError:
                raise ValueError(
                    f"{self.path}: tensor {tensor.name} has type {tensor.tensor_type.name}, which the gguf package "
                    f"can't dequantise; use another quantisation of the model"
                ) from None
            if self.architecture == "llama" and "attn_q." in tensor.name:
                values = _unpermute(values, num_heads)
            elif self.architecture == "llama" and "attn_k." in tensor.name:
                values = _unpermute(values, num_kv_heads)
            yield name, values

    def _hf_name(self, name: str) -> str:
        if (match := _LAYER_PATTERN.fullmatch(name)) and match[2] in _LAYER_NAMES:
            return f"model.layers.{match[1]}.{_LAYER_NAMES[match[2]]}.{match[3]}"
        if (match := _TOP_PATTERN.fullmatch(name)) and match[1] in _TOP_NAMES:
            return f"{_TOP_NAMES[match[1]]}.{match[2]}"
        # Among these is rope_freqs, Llama 3.1's scaling, whose parameters the file doesn't tell.
        raise ValueError(
            f"{self.path}: tensor {name} is not supported; use the model's safetensors folder or hub id instead"
        )

    def _rope(self) -> dict[str, Any]:
        rope = {"rope_type": "default", "rope_theta": _shortest(self.get("{arch}.rope.freq_base", 10_000.0))}
        scaling = self.get("{arch}.rope.scaling.type", "none")
        if scaling != "none":
            rope |= {"rope_type": scaling, "factor": _shortest(self.require("{arch}.rope.scaling.factor"))}
            if original := self.get("{arch}.rope.scaling.original_context_length"):
                rope["original_max_position_embeddings"] = original
        return rope

    def _count(self, key: str) -> int:
        return int(self.require(key))


def _shortest(value: float) -> float:
    """1e-05 for the fp32 number 9.999999747378752e-06, as the model's authors wrote it."""
    return float(str(np.float32(value)))


def _unpermute(values: np.ndarray, num_heads: int) -> np.ndarray:
    """Back from llama.cpp's row order (the two rotary halves of a head interleaved) to Hugging Face's."""
    rows, rest = values.shape[0], values.shape[1:]
    return values.reshape(num_heads, rows // num_heads // 2, 2, *rest).swapaxes(1, 2).reshape(values.shape)
