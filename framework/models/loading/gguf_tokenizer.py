"""The tokenizer that a GGUF file carries in its metadata: byte-level BPE with the pre-tokenizer it names, or
SentencePiece BPE. What a file leaves out has the value that llama.cpp gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from framework.models.loading.gguf_file import GGUFFile, open_gguf
from framework.models.loading.tokenizer import Tokenizer
from framework.models.loading.tokenizer_folder import named_templates

_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type
_REMEDY = "set model.tokenizer to a Hugging Face folder or hub id with this model's tokenizer.json"

_ENDINGS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
_LLAMA3_SPLIT = _CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _ENDINGS
_QWEN2_SPLIT = _CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _ENDINGS
_QWEN35_SPLIT = _CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}" + _ENDINGS.replace(r"\s\p{L}", r"\s\p{L}\p{M}")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN_SPLIT = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    + _ENDINGS.replace(r"[\r\n]*", r"[\r\n/]*")
)
_GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DEFAULT_SPLITS = (r"[\p{P}$+<=>^~|]+", _GPT2_SPLIT, r"\p{N}+", r"[0-9][0-9][0-9]")


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one family of byte-level BPE splits text into words."""

    splits: tuple[str, ...]
    adds_bos: bool = False
    """Whether prompts begin with BOS if the file does not say."""
    whole_words: bool = False
    """A word that is a token is taken whole, even where no chain of merges leads to it."""
    nfc: bool = False


_LLAMA3 = _Kind((_LLAMA3_SPLIT,), adds_bos=True, whole_words=True)
_QWEN2 = _Kind((_QWEN2_SPLIT,), nfc=True)
_GPT2 = _Kind((_GPT2_SPLIT,))
_KINDS = {
    "smollm": _Kind((r"\p{N}", _GPT2_SPLIT)),
    **dict.fromkeys(("gpt-2", "gpt2"), _GPT2),
    "default": _Kind(_DEFAULT_SPLITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), _LLAMA3),
    "tekken": _Kind((_TEKKEN_SPLIT,), adds_bos=True, whole_words=True),
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _Kind((_QWEN2_SPLIT,)),
    "qwen35": _Kind((_QWEN35_SPLIT,), nfc=True),
}


def gguf_tokenizer(path: Path) -> Tokenizer:
    """Rebuild the tokenizer of the file `path`.

    Raises:
        ValueError: naming the file, for another model than these two, an unknown pre-tokenizer, or parts that don't
            fit together.
    """
    file = open_gguf(path)
    tokens = file.items("tokenizer.ggml.tokens", str)
    model = file.text("tokenizer.ggml.model")
    try:
        if model == "gpt2":
            backend, adds_bos = _byte_level(file, tokens)
        elif model == "llama":
            backend, adds_bos = _sentencepiece(file, tokens), True
        else:
            raise ValueError(
                f"{path}: GGUF tokenizer model {model!r} is not supported, only 'gpt2' and 'llama' are; {_REMEDY}"
            )
    except ValueError:
        raise
    except Exception as error:  # what the Rust binding raises for a merge of tokens that do not exist
        raise ValueError(f"{path}: the tokenizer's parts don't fit together: {error}; {_REMEDY}") from error
    types = file.items("tokenizer.ggml.token_type", int, [])
    for token, token_type in zip(tokens, types, strict=False):
        if token_type == _CONTROL:
            backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif token_type == _USER_DEFINED:
            backend.add_tokens([AddedToken(token, normalized=False)])
    special_tokens = _special_tokens(file, tokens)
    _add_ends(file, backend, special_tokens, adds_bos=adds_bos)
    template = file.text("tokenizer.chat_template", "")
    templates = named_templates(template or None, str(path))
    prefix = "tokenizer.chat_template."
    templates |= {key.removeprefix(prefix): file.text(key) for key in file.metadata if key.startswith(prefix)}
    return Tokenizer(backend, chat_template=templates, special_tokens=special_tokens, source=str(path))


def _add_ends(file: GGUFFile, backend: tokenizers.Tokenizer, special_tokens: dict[str, str], *, adds_bos: bool) -> None:
    """Let prompts begin with BOS and end with EOS, where the file or llama.cpp's default says so."""
    parts = ["$A"]
    for end, default in (("bos", adds_bos), ("eos", False)):
        if not file.flag(f"tokenizer.ggml.add_{end}_token", default):
            continue
        if (token := special_tokens.get(f"{end}_token")) is None:
            raise ValueError(
                f"{file.path}: prompts get the {end.upper()} token, but tokenizer.ggml.{end}_token_id is missing; "
                f"{_REMEDY}"
            )
        parts = [token, *parts] if end == "bos" else [*parts, token]
    if len(parts) > 1:
        ids = [(token, backend.token_to_id(token)) for token in dict.fromkeys(parts) if token != "$A"]
        backend.post_processor = processors.TemplateProcessing(single=parts, pair=[*parts, "$B:1"], special_tokens=ids)


def _byte_level(file: GGUFFile, tokens: list[str]) -> tuple[tokenizers.Tokenizer, bool]:
    pre = file.text("tokenizer.ggml.pre", "gpt-2")
    if (kind := _KINDS.get(pre)) is None:
        raise ValueError(
            f"{file.path}: GGUF pre-tokenizer {pre!r} is not supported; supported are {', '.join(_KINDS)}; {_REMEDY}"
        )
    merges = _merges(file)
    vocab = {token: index for index, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=kind.whole_words))
    if kind.nfc:
        backend.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Split(Regex(split), "isolated") for split in kind.splits]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend, kind.adds_bos


def _merges(file: GGUFFile) -> list[tuple[str, str]]:
    merges = [tuple(merge.split(" ", 1)) for merge in file.items("tokenizer.ggml.merges", str)]
    if wrong := [merge for merge in merges if len(merge) != 2]:
        raise ValueError(
            f"{file.path}: tokenizer.ggml.merges holds {wrong[0][0]!r}, which is not two tokens; {_REMEDY}"
        )
    return merges  # type: ignore[return-value]


def _sentencepiece(file: GGUFFile, tokens: list[str]) -> tokenizers.Tokenizer:
    """Llama 2's and Mistral's: pieces with scores, from which the merges follow, and a token for each byte.

    A space is put before a prompt that does not begin with one, and nowhere else, as in `transformers`; llama.cpp puts
    one before every prompt, and after special tokens too.
    """
    scores = file.items("tokenizer.ggml.scores", float)
    if len(scores) != len(tokens):
        raise ValueError(f"{file.path}: {len(tokens)} tokens have {len(scores)} scores; {_REMEDY}")
    vocab = {token: index for index, token in enumerate(tokens)}
    unknown = file.integer("tokenizer.ggml.unknown_token_id", 0)
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=_merges(file) if file.has("tokenizer.ggml.merges") else _merges_of_scores(vocab, scores),
            unk_token=tokens[unknown] if 0 <= unknown < len(tokens) else None,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = file.flag("tokenizer.ggml.add_space_prefix", True)
    scheme = "first" if prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend


def _merges_of_scores(vocab: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """SentencePiece joins two neighbours when the result is a piece, the piece with the highest score first."""
    found = []
    for piece, rank in vocab.items():
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        pairs = [pair for pair in pairs if pair[0] in vocab and pair[1] in vocab]
        pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        found += [(scores[rank], pair) for pair in pairs]
    found.sort(key=lambda item: -item[0])  # stable: pairs of one piece keep their order
    return [pair for _, pair in found]


def _special_tokens(file: GGUFFile, tokens: list[str]) -> dict[str, str]:
    keys = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    found = {}
    defaults = {"bos": 1, "eos": 2, "unknown": 0} if file.text("tokenizer.ggml.model") == "llama" else {}
    for name, key in keys.items():
        token_id = file.integer(f"tokenizer.ggml.{key}_token_id", defaults.get(key, -1))
        if token_id >= len(tokens):
            raise ValueError(
                f"{file.path}: tokenizer.ggml.{key}_token_id={token_id}, but there are {len(tokens)} tokens; {_REMEDY}"
            )
        if token_id >= 0:
            found[name] = tokens[token_id]
    return found
