"""Text from tokens one at a time: what `push` returned so far plus `flush` equals decoding all tokens at once."""

from __future__ import annotations

import codecs
import re
from abc import ABC, abstractmethod
from functools import cache

import tokenizers
from tokenizers import decoders

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")


class StreamDecoder(ABC):
    """Holds back bytes that don't make a whole character yet."""

    @abstractmethod
    def push(self, token_id: int) -> str:
        """The text that `token_id` completes; often empty."""

    @abstractmethod
    def flush(self) -> str:
        """What was held back, at the end of a request."""


def stream_decoder(
    backend: tokenizers.Tokenizer, special_ids: frozenset[int], *, skip_special_tokens: bool
) -> StreamDecoder:
    """The decoder that fits a tokenizer."""
    skipped = special_ids if skip_special_tokens else frozenset()
    if isinstance(backend.decoder, decoders.ByteLevel):
        return _ByteLevelStream(backend, skipped)
    return _WindowStream(backend, skipped)


class _ByteLevelStream(StreamDecoder):
    """Byte-level BPE (GPT-2, Llama 3, Qwen): a token is a string of bytes, whatever stands around it."""

    def __init__(self, backend: tokenizers.Tokenizer, skipped: frozenset[int]) -> None:
        self._backend, self._skipped = backend, skipped
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        if token_id in self._skipped or (token := self._backend.id_to_token(token_id)) is None:
            return ""
        return self._utf8.decode(_token_bytes(token))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class _WindowStream(StreamDecoder):
    """Any other tokenizer: decodes the last few tokens with and without the new one and returns the difference.

    A new token must not change the text of those before it, so text is held back while it could. Where a token can
    stand for a byte (`<0xE2>`), that is as long as such tokens follow each other: their bytes are read together, and
    unless all of them are UTF-8, each becomes a replacement character. Elsewhere it is while the text ends with one.
    """

    def __init__(self, backend: tokenizers.Tokenizer, skipped: frozenset[int]) -> None:
        self._backend, self._skipped = backend, skipped
        self._context: list[int] = []  # tokens already returned that the next ones may depend on, e.g. for a space
        self._held: list[int] = []
        self._has_byte_tokens = b'"ByteFallback"' in (backend.decoder.__getstate__() if backend.decoder else b"")

    def push(self, token_id: int) -> str:
        if token_id in self._skipped or (token := self._backend.id_to_token(token_id)) is None:
            return ""  # a model may have more ids than its tokenizer has tokens
        self._held.append(token_id)
        if self._has_byte_tokens and _BYTE_TOKEN.fullmatch(token):
            return ""
        text = self._new_text()
        if text.endswith(_REPLACEMENT) and not self._has_byte_tokens:
            return ""
        self._context, self._held = self._held, []
        return text

    def flush(self) -> str:
        text = self._new_text()
        self._context, self._held = [], []
        return text

    def _new_text(self) -> str:
        before = self._backend.decode(self._context, skip_special_tokens=False)
        return self._backend.decode(self._context + self._held, skip_special_tokens=False)[len(before) :]


@cache
def _byte_of() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other bytes for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _token_bytes(token: str) -> bytes:
    byte_of = _byte_of()
    if all(character in byte_of for character in token):
        return bytes(byte_of[character] for character in token)
    return token.encode()  # an added token, kept as plain text
