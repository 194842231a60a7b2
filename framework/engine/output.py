"""What a step brought to its requests, and the text side of it: incremental decoding and stop strings."""

from __future__ import annotations

from dataclasses import dataclass, field

from framework.engine.special_stops import SpecialStops, StreamDecoder
from framework.interfaces.executor import TokenLogprobs
from framework.interfaces.records import RequestRecord


@dataclass(slots=True, kw_only=True)
class RequestOutput:
    """News of one request. The last one (`finished`) carries everything that it produced."""

    request_id: int
    new_token_ids: list[int]
    new_logprobs: list[TokenLogprobs] | None = None
    """Those of `new_token_ids`, if they were asked for; only when it streams."""
    text_delta: str = ""
    finished: bool = False
    finish_reason: str | None = None
    token_ids: list[int] = field(default_factory=list)
    """All output ids; only when finished."""
    text: str = ""
    """All output text; only when finished."""
    logprobs: list[TokenLogprobs] | None = None
    """One an output token, if asked for; only when finished."""
    record: RequestRecord | None = None
    """Only when finished."""
    error: Exception | None = None
    """What ended it, if it failed."""


class TextTracker:
    """The output text of one request: decoded token by token, cut at the first stop string.

    Text that could still become part of a stop string is held back, so that a stream never shows any of one. `special`
    looks for those of `stop` that name special tokens, which the text does not show.
    """

    def __init__(self, decoder: StreamDecoder, stop: tuple[str, ...], special: SpecialStops | None = None) -> None:
        self._decoder, self._stop, self._special = decoder, stop, special
        self._hold_back = max((len(text) for text in stop), default=1) - 1
        self.text = ""
        self._num_shown = 0
        self._is_cut = False
        """Whether what the decoder holds would come after the stop string"""

    def push(self, token_id: int) -> bool:
        """Take one more token; True when the text now contains a stop string, and has been cut before it."""
        self.text += (new := self._decoder.push(token_id))
        num_after = self._special.push(token_id) if self._special is not None else None
        end = len(self.text) - (num_after or 0)
        found = self._cut(len(new))
        if num_after is not None:
            self.text, self._hold_back = self.text[:end], 0
        self._is_cut = found or (num_after is not None and new != "")
        return found or num_after is not None

    def finish(self) -> None:
        """No token follows. What the decoder held of an unfinished character is shown as it would be decoded."""
        if not self._is_cut:
            self.text += (new := self._decoder.flush())
            self._cut(len(new))
        self._hold_back = 0

    def take_delta(self) -> str:
        """Text that can be shown and was not yet."""
        end = max(self._num_shown, len(self.text) - self._hold_back)
        delta, self._num_shown = self.text[self._num_shown : end], end
        return delta

    def _cut(self, num_new: int) -> bool:
        if not self._stop or not num_new:
            return False
        begin = max(0, len(self.text) - num_new - self._hold_back)
        found = [at for text in self._stop if (at := self.text.find(text, begin)) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self._hold_back = 0
        return bool(found)
