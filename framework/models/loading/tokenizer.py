"""The tokenizer: text to ids and back, chat prompts, streaming."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from framework.models.loading.chat_template import ChatTemplate
from framework.models.loading.json_file import read_json
from framework.models.loading.stream_decoder import StreamDecoder, stream_decoder

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class Tokenizer:
    """Wraps a `tokenizers.Tokenizer` with what a Hugging Face folder says beside it.

    Attributes:
        backend: the wrapped tokenizer.
        special_tokens: text of `bos_token`, `eos_token`, ..., those that exist.
        special_texts: text of every token that output leaves out, by id.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        chat_template: str | None = None,
        special_tokens: Mapping[str, str] | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.special_tokens = dict(special_tokens or {})
        self._chat_template_source = chat_template
        added = backend.get_added_tokens_decoder().items()
        self.special_texts = {token_id: token.content for token_id, token in added if token.special}
        self._special_ids = frozenset(self.special_texts)

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """From `tokenizer.json`, or what `transformers` can turn into one.

        Raises:
            ValueError: if the folder holds no tokenizer, or a broken one.
        """
        settings_path = folder / "tokenizer_config.json"
        settings = read_json(settings_path) if settings_path.exists() else {}
        return cls(
            _read_backend(folder),
            chat_template=_read_chat_template(folder, settings),
            special_tokens=_special_tokens(settings),
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; the model's may be larger, because it is padded."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The id of `eos_token`, if there is one. The model's own list may hold more."""
        token = self.special_tokens.get("eos_token")
        token_id = None if token is None else self.backend.token_to_id(token)
        return () if token_id is None else (token_id,)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of `text`, special tokens in it included; `add_special_tokens` puts BOS first if the model wants it.

        Raises:
            ValueError: `text` is not text, or holds half of a surrogate pair.
        """
        if not isinstance(text, str):
            raise ValueError(f"a prompt of type {type(text).__name__} is not text; pass a string or token ids")
        try:
            return self.backend.encode(text, add_special_tokens=add_special_tokens).ids
        except TypeError as error:
            place = next((i for i, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
            if place is None:
                raise
            raise ValueError(
                f"the text holds {text[place]!r} at character {place}, which is half of a surrogate pair and not a "
                f"character; leave it out, or decode the text with errors='replace'"
            ) from error

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return self.backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def stream_decoder(self, *, skip_special_tokens: bool = True) -> StreamDecoder:
        """A decoder for the tokens of one request."""
        return stream_decoder(self.backend, self._special_ids, skip_special_tokens=skip_special_tokens)

    @property
    def has_chat_template(self) -> bool:
        return self._chat_template_source is not None

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The text of a conversation; `variables` go to the template, e.g. `enable_thinking=False`.

        Raises:
            ValueError: without a chat template, or if it refuses the messages.
        """
        return self._chat_template.render(messages, add_generation_prompt=add_generation_prompt, **variables)

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> list[int]:
        """The ids of a conversation. See `render_chat`."""
        text = self.render_chat(messages, add_generation_prompt=add_generation_prompt, **variables)
        return self.encode(text, add_special_tokens=False)  # the template wrote BOS itself

    @cached_property
    def _chat_template(self) -> ChatTemplate:
        if self._chat_template_source is None:
            raise ValueError(
                "this model has no chat template; pass plain prompts, or set model.tokenizer to one that has"
            )
        return ChatTemplate(self._chat_template_source, self.special_tokens)


def _read_backend(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if path.exists():
        try:
            return tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust binding raises bare Exception
            raise ValueError(f"{path} can't be read as a tokenizer: {error}") from error
    if not has_tokenizer(folder):
        raise ValueError(f"{folder} holds no tokenizer.json; set model.tokenizer to a folder or hub id that does")
    from transformers import AutoTokenizer  # converts older formats; slow to import, so only for them

    return AutoTokenizer.from_pretrained(folder).backend_tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether `Tokenizer.from_folder` has something to read."""
    return any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    tokens = {}
    for name in _SPECIAL_NAMES:
        value = settings.get(name)
        if isinstance(value, Mapping):  # a serialised AddedToken
            value = value["content"]
        if value is not None:
            tokens[name] = value
    return tokens


def _read_chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        return named.get("default")
    return template


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Save so that `Tokenizer.from_folder` and `transformers` read it back."""
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **tokenizer.special_tokens}
    if tokenizer._chat_template_source is not None:
        settings["chat_template"] = tokenizer._chat_template_source
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
