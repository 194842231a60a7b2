"""The tokenizer that a GGUF file carries in its metadata: byte-level BPE with the pre-tokenizer it names."""

from __future__ import annotations

from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from framework.models.loading.gguf_file import GGUFFile
from framework.models.loading.tokenizer import Tokenizer

_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


def _split(pattern: str) -> list[Any]:
    return [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def _pre_tokenizer_steps(kind: str) -> list[Any] | None:
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    match kind:
        case "smollm":
            return [pre_tokenizers.Digits(individual_digits=True), gpt2]
        case "gpt-2" | "gpt2":
            return [gpt2]
        case "llama-bpe" | "llama3" | "llama-v3":
            return _split(_LLAMA3_SPLIT)
        case "qwen2":
            return _split(_QWEN2_SPLIT)
    return None


def read_gguf_tokenizer(file: GGUFFile) -> Tokenizer:
    """Rebuild the tokenizer.

    Raises:
        ValueError: naming the file, for another model than byte-level BPE or an unknown pre-tokenizer.
    """
    remedy = "set model.tokenizer to a Hugging Face folder or hub id with this model's tokenizer.json"
    if (kind := file.get("tokenizer.ggml.model")) != "gpt2":
        raise ValueError(f"{file.path}: GGUF tokenizer model {kind!r} is not supported, only 'gpt2' is; {remedy}")
    pre = file.get("tokenizer.ggml.pre", "gpt-2")
    if (steps := _pre_tokenizer_steps(pre)) is None:
        raise ValueError(
            f"{file.path}: GGUF pre-tokenizer {pre!r} is not supported; supported are smollm, gpt-2, llama-bpe, qwen2; "
            f"{remedy}"
        )
    tokens: list[str] = file.require("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in file.require("tokenizer.ggml.merges")]
    vocab = {token: index for index, token in enumerate(tokens)}
    # Llama 3's tokenizer takes a word that is a token whole, even where no chain of merges leads to it.
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=pre.startswith("llama")))
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    for token, token_type in zip(tokens, file.get("tokenizer.ggml.token_type", []), strict=False):
        if token_type == _CONTROL:
            backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif token_type == _USER_DEFINED:
            backend.add_tokens([AddedToken(token, normalized=False)])
    special_tokens = _special_tokens(file, tokens)
    if file.get("tokenizer.ggml.add_bos_token", False) and (bos := special_tokens.get("bos_token")):
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocab[bos])]
        )
    return Tokenizer(backend, chat_template=file.get("tokenizer.chat_template"), special_tokens=special_tokens)


def _special_tokens(file: GGUFFile, tokens: list[str]) -> dict[str, str]:
    keys = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {name: file.get(f"tokenizer.ggml.{key}_token_id") for name, key in keys.items()}
    return {name: tokens[token_id] for name, token_id in ids.items() if token_id is not None}
