"""What a step brought to its requests, and the text side of it: incremental decoding and stop strings."""

from __future__ import annotations

from dataclasses import dataclass, field

from framework.engine.special_stops import SpecialStops, StreamDecoder
from framework.interfaces.executor import TokenLogprobs
from framework.interfaces.records import RequestRecord


@dataclass(slots=True, kw_only=True)
class RequestOutput:
    """What is new about one request. The last output (`finished`) carries all that the request produced."""

    request_id: int
    new_token_ids: list[int]
    new_logprobs: list[TokenLogprobs] | None = None
    """The log-probabilities of `new_token_ids`, if they were asked for and the request streams."""
    prompt_logprobs: list[TokenLogprobs] | None = None
    """Those of the prompt's tokens from the second on, if asked for: with a stream's first token and in the last
    output. Empty if the request ended before its prompt was computed."""
    text_delta: str = ""
    finished: bool = False
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    """The stop string or the stop token that ended it; None for the model's own end tokens and for any other end."""
    token_ids: list[int] = field(default_factory=list)
    """All output ids, once the request has finished."""
    text: str = ""
    """All output text, once the request has finished."""
    logprobs: list[TokenLogprobs] | None = None
    """The log-probabilities of each output token, if asked for, once the request has finished."""
    record: RequestRecord | None = None
    """The record of the request, once it has finished."""
    error: Exception | None = None
    """The error that ended the request, if it failed."""


class TextTracker:
    """The output text of one request: decoded token by token, cut at the first stop string.

    Text that could still become part of a stop string is held back, so that a stream never shows any of one.

    Args:
        special: looks for those of `stop` that name special tokens, where the text does not show them.
        min_tokens: a stop string that an earlier token completes stays in the text.
        include_stop: cut after the stop string, not before it.
    """

    def __init__(
        self,
        decoder: StreamDecoder,
        stop: tuple[str, ...],
        special: SpecialStops | None = None,
        *,
        min_tokens: int = 0,
        include_stop: bool = False,
    ) -> None:
        self._decoder, self._stop, self._special = decoder, stop, special
        self._tokens_left, self._include_stop = min_tokens, include_stop
        self._hold_back = max((len(text) for text in stop), default=1) - 1
        self.text = ""
        self.found: str | None = None
        """The stop string that it was cut at"""
        self._num_shown = 0
        self._is_cut = False
        """Whether what the decoder holds would come after the stop string"""

    def push(self, token_id: int) -> bool:
        """Take one more token; True when the text now contains a stop string, and has been cut there."""
        self.text += (new := self._decoder.push(token_id))
        special = None
        if self._special is not None:
            special = self._special.push(token_id, include_stop=self._include_stop)
        if self._tokens_left > 1:
            self._tokens_left -= 1
            return False
        end = len(self.text) - (special[1] if special is not None else 0)
        found = self._cut(len(new))
        if special is not None:
            self.found = special[0]
            self.text, self._hold_back = self.text[:end], 0
        self._is_cut = found or (special is not None and new != "")
        return found or special is not None

    def push_last(self, token_id: int) -> None:
        """Take a stop token, which the text shows only if it is to include what stopped it."""
        if self._include_stop:
            self.text += self._decoder.push(token_id)

    def finish(self) -> None:
        """No token follows. What the decoder held of an unfinished character is shown as it would be decoded."""
        if not self._is_cut:
            self.text += (new := self._decoder.flush())
            self._cut(len(new))
        self._hold_back = 0

    def take_delta(self) -> str:
        """The text that can be shown and has not been shown yet."""
        end = max(self._num_shown, len(self.text) - self._hold_back)
        delta, self._num_shown = self.text[self._num_shown : end], end
        return delta

    def _cut(self, num_new: int) -> bool:
        if not self._stop or not num_new:
            return False
        old = len(self.text) - num_new
        places = ((self.text.find(text, max(0, old - len(text) + 1)), text) for text in self._stop)
        found = min(((at, text) for at, text in places if at >= 0), key=lambda one: one[0], default=None)
        if found is not None:
            at, self.found = found
            self.text = self.text[: at + (len(self.found) if self._include_stop else 0)]
            self._hold_back = 0
        return found is not None
