"""Turns a workload into a list of tokenised requests before the clock starts, so that no timing contains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from framework.interfaces.workload import TimedRequest, Workload, WorkloadContext
from framework.workloads.prompt_tokens import draw_prompt

PROMPTS = ("prompt", "messages", "prompt_token_ids", "prompt_keys")


def prepare(workload: Workload, context: WorkloadContext) -> list[TimedRequest]:
    """Draw every request of `workload` and replace text, and keys unless the executor takes them, by token ids.

    Raises:
        ValueError: the workload yields nothing or is out of order, or it has text and there is no tokenizer.
    """
    prepared: list[TimedRequest] = []
    last_s = 0.0
    for request in workload.requests(context):
        if request.after is not None:
            _check_follow_up(request, prepared)
        elif request.arrival_s < last_s:
            raise ValueError(
                f"arrival_s={request.arrival_s} of request {len(prepared)} is before {last_s}, "
                "the latest arrival so far (0 at first): sort the requests by arrival_s, none below 0"
            )
        else:
            last_s = request.arrival_s
        streams = workload.prints_answers and context.needs_token_ids  # a simulation has no words to stream
        request = replace(request, streams=streams, **_tokenized(request, context.tokenizer))
        if context.needs_token_ids and request.prompt_keys is not None and not request.error:
            seed = workload.seed_for(context)
            ids = draw_prompt(request, len(prepared), seed=seed, vocab_size=context.vocab_size)
            request = replace(request, prompt_token_ids=ids, prompt_keys=None)
        prepared.append(request)
    if not prepared:
        raise ValueError(f"the workload {type(workload).__name__} has 0 requests, at least 1 is needed")
    return prepared


def _check_follow_up(request: TimedRequest, earlier: list[TimedRequest]) -> None:
    place, after = len(earlier), request.after
    assert after is not None
    if not 0 <= after < place:
        raise ValueError(f"request {place} follows request {after}, which is not one before it")
    if request.delay_s < 0:
        raise ValueError(f"delay_s={request.delay_s} of request {place} must be at least 0")
    if request.prompt_token_ids is None or (earlier[after].prompt_token_ids is None and not earlier[after].error):
        raise ValueError(f"request {place} follows request {after}: the prompts of both must have prompt_token_ids")


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(str(part.get("text", "")) for part in content)


def _tokenized(request: TimedRequest, tokenizer: Any) -> dict[str, Any]:
    """The fields of `request` that change when its text becomes token ids."""
    given = [name for name in PROMPTS if getattr(request, name) is not None]
    if request.error:
        return {}
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        return {"error": f"a request takes exactly one of {', '.join(PROMPTS)}; it has {found}"}
    if request.prompt_token_ids is not None or request.prompt_keys is not None:
        return {}
    if tokenizer is None:
        raise ValueError(f"{given[0]} needs a tokenizer and the model has none; pass prompt_token_ids instead")
    if request.prompt is not None:
        changed: dict[str, Any] = {"label": request.label or request.prompt, "prompt": None}
        encode: Callable[[], Sequence[int]] = partial(tokenizer.encode, request.prompt)
    else:
        assert request.messages is not None
        if not tokenizer.has_chat_template:
            raise ValueError("messages need a chat template and the model's tokenizer has none; pass prompt instead")
        if not request.messages:
            return {"error": "messages=[] must hold at least 1 message; pass one with role user"}
        changed = {"label": request.label or _text_of(request.messages[-1]), "messages": None}
        encode = partial(tokenizer.apply_chat_template, request.messages)
    try:
        return {**changed, "prompt_token_ids": list(encode())}
    except ValueError as error:  # this text is refused: other requests may be fine
        return {**changed, "error": str(error)}
