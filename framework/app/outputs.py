"""What the Python API returns: answers with their log-probabilities, times and counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from framework.interfaces.records import RequestRecord

if TYPE_CHECKING:
    from framework.engine.output import RequestOutput
    from framework.interfaces.executor import TokenLogprobs


@dataclass(slots=True, frozen=True)
class Logprob:
    """A token's natural-log probability under the raw logits (before temperature, filters and penalties)."""

    logprob: float
    rank: int | None
    """1 for the most likely token; None for a sampled token that is not among those asked for. Tokens of prompts always
    have one."""
    decoded_token: str | None
    """None without a tokenizer."""


class PositionLogprobs(dict[int, Logprob]):
    """Token id -> `Logprob` at one position: the sampled token or that of the prompt first, then the most likely ones.

    Attributes:
        token_id: the first one.
        logprob: its log-probability.
        top: the most likely (token id, log-probability) pairs, most likely first.
    """

    def __init__(self, entry: TokenLogprobs, decode: Callable[[int], str | None]) -> None:
        self.token_id, self.logprob, self.top = entry.token_id, entry.logprob, entry.top
        ranks = {token: rank for rank, (token, _) in enumerate(entry.top, 1)}
        for token, logprob in [(entry.token_id, entry.logprob), *entry.top]:
            if token not in self:
                self[token] = Logprob(logprob, ranks.get(token, entry.rank), decode(token))


@dataclass(slots=True, kw_only=True)
class Completion:
    """One answer to a prompt."""

    index: int
    """Which of the `n` answers it is."""
    text: str
    token_ids: list[int]
    finish_reason: str
    """stop, length or abort."""
    stop_reason: int | str | None = None
    """The stop string or stop token that ended it; None for the model's own end tokens and any other end."""
    logprobs: list[PositionLogprobs] | None = None
    """One per token, if asked for."""
    cumulative_logprob: float | None = None
    """Their sum over the sampled tokens."""
    record: RequestRecord | None = None
    """Its times and counts."""

    def finished(self) -> bool:
        """Whether it is complete, as every answer of `LLM.generate` is."""
        return True

    @classmethod
    def of(cls, index: int, last: RequestOutput, decode: Callable[[int], str | None]) -> Completion:
        """From the last output of its request."""
        assert last.finish_reason is not None
        logprobs = None if last.logprobs is None else [PositionLogprobs(entry, decode) for entry in last.logprobs]
        return cls(
            index=index,
            text=last.text,
            token_ids=last.token_ids,
            finish_reason=last.finish_reason,
            stop_reason=last.stop_reason,
            logprobs=logprobs,
            cumulative_logprob=None if logprobs is None else sum(entry.logprob for entry in logprobs),
            record=last.record,
        )


@dataclass(slots=True, kw_only=True)
class GenerationOutput:
    """A prompt and what came of it. If a request was refused or failed, `error` is set and its answer is missing."""

    prompt: str | None
    """Its text, for a conversation as its template rendered it; None for token ids."""
    prompt_token_ids: list[int]
    request_id: str = ""
    """Of its first request at the engine; empty if that was refused."""
    outputs: list[Completion] = field(default_factory=list)
    """The `n` answers."""
    prompt_logprobs: list[PositionLogprobs | None] | None = None
    """One per token of the prompt, if asked for. The first is None, since nothing comes before it."""
    record: RequestRecord | None = None
    """Times and counts of the first answer's request; the others have theirs as `Completion.record`."""
    error: Exception | None = None
    """A `ValueError` for a request that was refused; else what a step raised that it was in."""

    @property
    def finished(self) -> bool:
        """Whether every answer is there."""
        return self.error is None

    @property
    def metrics(self) -> RequestRecord | None:
        """`record`, by vLLM's name."""
        return self.record

    @property
    def num_cached_tokens(self) -> int | None:
        """Prompt tokens that the prefix cache held when the request was admitted."""
        return None if self.record is None else self.record.num_cached_tokens


@dataclass(slots=True)
class StreamChunk:
    """A piece of a streamed answer; the last one has a `finish_reason`."""

    text: str
    token_ids: list[int]
    finish_reason: str | None = None
    stop_reason: int | str | None = None
