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
        self._text = ""
        self._special: list[tuple[int, int]] = []
        """Begin and end of each special token in the text"""

    def push(self, token_id: int, *, include_stop: bool = False) -> tuple[str, int] | None:
        """Take one more token. None, or the stop string that it completes and how many characters at the end of the
        output text belong to that or come after it; with `include_stop`, only those that come after it."""
        self._text += (new := self._decoder.push(token_id))
        if (special := self._special_texts.get(token_id)) is not None:
            self._special.append((len(self._text) - len(special), len(self._text)))
        old = len(self._text) - len(new)
        places = ((self._text.find(text, max(0, old - len(text) + 1)), text) for text in self._stop)
        found = min(((at, text) for at, text in places if at >= 0), key=lambda one: one[0], default=None)
        if found is None:
            return None
        cut = found[0] + (len(found[1]) if include_stop else 0)
        hidden = sum(end - max(begin, cut) for begin, end in self._special if end > cut)
        return found[1], len(self._text) - cut - hidden
