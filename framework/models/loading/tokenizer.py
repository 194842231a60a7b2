"""The tokenizer: text to ids and back, chat prompts, streaming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import tokenizers

from framework.models.loading.chat_template import ChatTemplate
from framework.models.loading.stream_decoder import StreamDecoder, stream_decoder
from framework.models.loading.tokenizer_folder import TokenizerFolder
from framework.toolkit.read_file import read_text

_MAX_TOKENIZER_BYTES = 1 << 30


class Tokenizer:
    """Wraps a `tokenizers.Tokenizer` with what a Hugging Face folder or a GGUF file says beside it.

    Attributes:
        backend: the wrapped tokenizer.
        special_tokens: text of `bos_token`, `eos_token`, ..., those that exist.
        special_texts: text of every token that output leaves out, by id.
        chat_templates: name -> source; the usual one is called `default`.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        chat_template: str | Mapping[str, str] | None = None,
        special_tokens: Mapping[str, str] | None = None,
        source: str = "",
    ) -> None:
        """
        Args:
            chat_template: one, or several by name.
            source: the file or folder that they are from, for error messages.
        """
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.special_tokens = dict(special_tokens or {})
        named = {"default": chat_template} if isinstance(chat_template, str) else chat_template
        self.chat_templates = dict(named or {})
        self._source = source
        self._compiled: dict[str, ChatTemplate] = {}
        added = backend.get_added_tokens_decoder().items()
        self.special_texts = {token_id: token.content for token_id, token in added if token.special}
        self._special_ids = frozenset(self.special_texts)

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json`, or what `transformers` can turn into one.

        Raises:
            ValueError: if the folder holds no tokenizer, or a broken one.
        """
        settings = TokenizerFolder(folder)
        backend = _read_backend(folder)
        settings.add_tokens(backend)
        return cls(
            backend,
            chat_template=settings.chat_templates(),
            special_tokens=settings.special_tokens,
            source=str(folder),
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; the model's may be larger, because it is padded."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The id of `eos_token`, if there is one. The model's own list may hold more."""
        token_id = self.eos_token_id
        return () if token_id is None else (token_id,)

    @property
    def eos_token_id(self) -> int | None:
        """The id of `eos_token`, if there is one."""
        token = self.special_tokens.get("eos_token")
        return None if token is None else self.backend.token_to_id(token)

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
        return bool(self.chat_templates)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The text of a conversation; `variables` go to the template, e.g. `enable_thinking=False`.

        Of several templates, `tool_use` is chosen when `tools` are given, else `default`; `chat_template`, a template's
        source, takes their place.

        Raises:
            ValueError: without a chat template, or if it refuses the messages.
        """
        if chat_template is not None:
            template = ChatTemplate(chat_template, self.special_tokens, source="chat_template")
        else:
            template = self._chat_template(with_tools=variables.get("tools") is not None)
        return template.render(messages, add_generation_prompt=add_generation_prompt, **variables)

    @overload
    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], *, tokenize: Literal[True] = True, **variables: Any
    ) -> list[int]: ...

    @overload
    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], *, tokenize: Literal[False], **variables: Any
    ) -> str: ...

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], *, tokenize: bool = True, **variables: Any
    ) -> list[int] | str:
        """The ids of a conversation, or its text without `tokenize`. See `render_chat`."""
        text = self.render_chat(messages, **variables)
        if not tokenize:
            return text
        return self.encode(text, add_special_tokens=False)  # the template wrote BOS itself

    def _chat_template(self, *, with_tools: bool) -> ChatTemplate:
        if not self.chat_templates:
            raise ValueError(
                "this model has no chat template; pass plain prompts, or set model.tokenizer to one that has"
            )
        name = "tool_use" if with_tools and "tool_use" in self.chat_templates else "default"
        if name not in self.chat_templates:
            raise ValueError(
                f"{self._source}: of the chat templates {', '.join(sorted(self.chat_templates))} none is called "
                f"'default'; rename the one to use, or set model.tokenizer to a folder that has it"
            )
        if name not in self._compiled:
            self._compiled[name] = ChatTemplate(self.chat_templates[name], self.special_tokens, source=self._source)
        return self._compiled[name]


def _read_backend(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if path.exists():
        try:
            return tokenizers.Tokenizer.from_str(read_text(path, max_bytes=_MAX_TOKENIZER_BYTES))
        except ValueError:
            raise
        except Exception as error:  # the Rust binding raises bare Exception
            raise ValueError(f"{path} can't be read as a tokenizer: {error}") from error
    if not has_tokenizer(folder):
        raise ValueError(f"{folder} holds no tokenizer.json; set model.tokenizer to a folder or hub id that does")
    from transformers import AutoTokenizer  # converts older formats; slow to import, so only for them

    try:
        return AutoTokenizer.from_pretrained(folder).backend_tokenizer
    except Exception as error:  # whatever its converters meet in broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{folder}: transformers can't convert the tokenizer: {reason}") from error


def has_tokenizer(folder: Path) -> bool:
    """Whether `Tokenizer.from_folder` has something to read."""
    return any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))
