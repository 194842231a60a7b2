"""Tiny GGUF files, written as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from tokenizers import pre_tokenizers

HEADS, KV_HEADS, HIDDEN, FEED_FORWARD, LAYERS = 4, 2, 64, 96, 2
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOKENS = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "ll", "hell", "hello", "Ġh", "12"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ h", "1 2"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def permute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """llama.cpp's row order: the two rotary halves of each head interleaved."""
    half = weight.shape[0] // num_heads // 2
    order = [head * 2 * half + part * half + i for head in range(num_heads) for i in range(half) for part in range(2)]
    return weight[order]


def write_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    quantisation: GGMLQuantizationType = GGMLQuantizationType.F32,
    tied: bool = True,
    pre_tokenizer: str = "smollm",
    tokenizer_model: str = "gpt2",
    extra_tensor: str | None = None,
    skip_tensor: str | None = None,
    biases: dict[str, int] | None = None,
    vocab_size: int = len(TOKENS),
    rope_divisors: np.ndarray | None = None,
    metadata: Callable[[GGUFWriter], None] = lambda writer: None,
    tokenizer: Callable[[GGUFWriter], None] | None = None,
    other_kinds: dict[str, GGMLQuantizationType] | None = None,
) -> dict[str, Any]:
    """Write the file; returns the weights, unquantised and in Hugging Face's row order, under their GGUF names.

    `metadata` adds keys, and `tokenizer` writes another one than that of `TOKENS` (of as many tokens).
    `other_kinds` are the types of tensors that are not of `quantisation`.
    """
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab_size)
    if tokenizer is not None:
        tokenizer(writer)
    else:
        writer.add_tokenizer_model(tokenizer_model)
        writer.add_tokenizer_pre(pre_tokenizer)
        writer.add_token_list(TOKENS)
        writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
        writer.add_token_merges(MERGES)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_chat_template(CHAT_TEMPLATE)
    metadata(writer)

    generator = np.random.default_rng(0)
    kv_size = HIDDEN // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab_size, HIDDEN)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (HIDDEN,),
                "attn_q": (HIDDEN, HIDDEN),
                "attn_k": (kv_size, HIDDEN),
                "attn_v": (kv_size, HIDDEN),
                "attn_output": (HIDDEN, HIDDEN),
                "ffn_norm": (HIDDEN,),
                "ffn_gate": (FEED_FORWARD, HIDDEN),
                "ffn_up": (FEED_FORWARD, HIDDEN),
                "ffn_down": (HIDDEN, FEED_FORWARD),
            }.items()
        }
        shapes |= {f"blk.{layer}.{name}.bias": (size,) for name, size in (biases or {}).items()}
    shapes["output_norm.weight"] = (HIDDEN,)
    if not tied:
        shapes["output.weight"] = (vocab_size, HIDDEN)
    if extra_tensor is not None:
        shapes[extra_tensor] = (HIDDEN,)
    shapes.pop(skip_tensor or "", None)

    weights = {}
    for name, shape in shapes.items():
        weights[name] = weight = generator.normal(0, 0.2, shape).astype(np.float32)
        if architecture == "llama" and "attn_q." in name:
            weight = permute(weight, HEADS)
        if architecture == "llama" and "attn_k." in name:
            weight = permute(weight, KV_HEADS)
        kind = quantisation if len(shape) == 2 else GGMLQuantizationType.F32
        kind = (other_kinds or {}).get(name, kind)
        writer.add_tensor(name, quantize(weight, kind), raw_dtype=kind)
    if rope_divisors is not None:
        writer.add_tensor("rope_freqs.weight", rope_divisors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights
