"""What a request brings and leaves behind: its next output, its last output and its record."""

from __future__ import annotations

from framework.engine.output import RequestOutput
from framework.engine.request import Request
from framework.interfaces.executor import TokenLogprobs
from framework.interfaces.records import RequestRecord, stated

FAILED = "failed"
REJECTED = "rejected"
OWN_END = ("stop", "length")
"""Reasons of a request that came to its own end."""


def last_output(
    request: Request, reason: str, finish_s: float, *, new_token_ids: list[int], error: Exception | None = None
) -> RequestOutput:
    """The last output of a request that ends for `reason` at `finish_s`. `error` says why it failed, if it did."""
    delta = text = ""
    stop_reason: int | str | None = None
    if reason == "stop" and new_token_ids[-1] in request.params.stop_token_ids:
        stop_reason = new_token_ids[-1]
    if request.text is not None:
        request.text.finish()
        delta, text = request.text.take_delta(), request.text.text
        stop_reason = request.text.found if reason == "stop" and request.text.found is not None else stop_reason
    return RequestOutput(
        request_id=request.id,
        new_token_ids=new_token_ids,
        new_logprobs=request.logprobs[-1:] if new_token_ids and request.params.logprobs is not None else None,
        prompt_logprobs=prompt_logprobs_of(request),
        text_delta=delta if request.spec.streams else "",
        finished=True,
        finish_reason=reason,
        stop_reason=stop_reason,
        token_ids=request.output_ids,
        text=text,
        logprobs=request.logprobs if request.params.logprobs is not None else None,
        record=_record(request, reason, finish_s, error),
        error=error,
    )


def next_output(request: Request, token_id: int) -> RequestOutput:
    """What one more token of a stream brings."""
    return RequestOutput(
        request_id=request.id,
        new_token_ids=[token_id],
        new_logprobs=None if request.params.logprobs is None else request.logprobs[-1:],
        prompt_logprobs=prompt_logprobs_of(request) if request.num_output == 1 else None,
        text_delta="" if request.text is None else request.text.take_delta(),
    )


def prompt_logprobs_of(request: Request) -> list[TokenLogprobs] | None:
    """Those of all its tokens from the second on; empty if it ended before all of them were computed."""
    if request.params.prompt_logprobs is None:
        return None
    known = request.prompt_logprobs
    return known if len(known) == request.num_prompt - 1 else []


def failed_output(request: Request, error: Exception, finish_s: float) -> RequestOutput:
    """The last output of a request that `error` ends, maybe in the middle of a delivery. Whole tokens are kept."""
    num_output = min(request.num_output, len(request.token_times_s), len(request.output_ids))
    request.num_known = request.num_prompt + num_output
    del request.token_times_s[num_output:]
    return RequestOutput(
        request_id=request.id,
        new_token_ids=[],
        finished=True,
        finish_reason=FAILED,
        token_ids=request.output_ids[:num_output],
        text=request.text.text if request.text is not None else "",
        logprobs=request.logprobs[:num_output] if request.params.logprobs is not None else None,
        record=_record(request, FAILED, finish_s, error),
        error=error,
    )


def _record(request: Request, reason: str, finish_s: float, error: Exception | None) -> RequestRecord:
    return RequestRecord(
        request_id=request.id,
        arrival_s=request.arrival_s,
        scheduled_s=request.scheduled_s,
        first_token_s=request.token_times_s[0] if request.token_times_s else None,
        finish_s=finish_s,
        num_prompt_tokens=request.num_prompt,
        num_output_tokens=request.num_output,
        num_cached_tokens=request.num_cached_tokens,
        num_preemptions=request.num_preemptions,
        finish_reason=reason,
        error=_one_line(error) if error is not None else "",
        token_times_s=request.token_times_s,
        **stated(request.spec),
        **({} if request.prediction is None else request.prediction.for_record()),
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
