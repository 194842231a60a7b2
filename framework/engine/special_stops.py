"""Stop strings that name special tokens, which output text leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class StreamDecoder(Protocol):
    def push(self, token_id: int) -> str:
        """The text that `token_id` completes; empty while it ends in the middle of a character."""

    def flush(self) -> str:
        """The text of an unfinished character that will never be completed."""


class SpecialStops:
    """Looks for the first of `stop` in the output with its special tokens.

    Args:
        decoder: one that shows special tokens.
        special_texts: their texts, by id.
    """

    def __init__(self, decoder: StreamDecoder, stop: tuple[str, ...], special_texts: Mapping[int, str]) -> None:
        self._decoder, self._stop, self._special_texts = decoder, stop, special_texts
        self._longest = max(map(len, stop))
        self._text = ""
        self._special: list[tuple[int, int]] = []
        """Begin and end of each special token in the text"""

    def push(self, token_id: int) -> int | None:
        """Take one more token. None, or if it completes a stop string, how many characters at the end of the output
        text belong to that or come after it."""
        self._text += (new := self._decoder.push(token_id))
        if (special := self._special_texts.get(token_id)) is not None:
            self._special.append((len(self._text) - len(special), len(self._text)))
        begin = max(0, len(self._text) - len(new) - self._longest + 1)
        found = [at for text in self._stop if (at := self._text.find(text, begin)) >= 0]
        if not found:
            return None
        first = min(found)
        hidden = sum(end - max(begin, first) for begin, end in self._special if end > first)
        return len(self._text) - first - hidden
