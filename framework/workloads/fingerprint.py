"""What a workload asked of the engine, as a hash: cells with different hashes did not serve the same requests."""

from __future__ import annotations

import dataclasses
import hashlib
from array import array
from collections.abc import Sequence

from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest


def requests_sha256(requests: Sequence[TimedRequest]) -> str:
    """SHA-256 over every prepared request: its times, its prompt (token ids or keys), its parameters, its client.

    Where a request was read does not count, so that a copy of a trace gives the same hash. Prompts known by key (in a
    simulation) and the token ids drawn for them elsewhere give different hashes.
    """
    digest = hashlib.sha256()
    params: dict[int, bytes] = {}  # most workloads share a few objects among all of their requests
    for request in requests:
        if id(request.params) not in params:
            params[id(request.params)] = _canonical(request.params)
        about = (
            *(request.arrival_s, request.after, request.delay_s, request.num_prompt_tokens, request.key_tokens),
            *(request.priority, request.client, request.category, request.deadline_s, bool(request.error)),
            *(request.prompt, request.messages, request.output_tokens),
            *((name, value) for name, default in _OTHERS if (value := getattr(request, name)) != default),
        )
        digest.update(repr(about).encode("utf-8", "backslashreplace") + params[id(request.params)])
        for prompt in (request.prompt_token_ids, request.prompt_keys):
            digest.update(b"-" if prompt is None else array("q", prompt).tobytes())
    return digest.hexdigest()


_OTHERS = tuple(
    (one.name, one.default)
    for one in dataclasses.fields(TimedRequest)
    if one.default is not dataclasses.MISSING
    and one.name not in ("arrival_s", "after", "delay_s", "num_prompt_tokens", "key_tokens", "priority", "client")
    and one.name not in ("category", "deadline_s", "error", "prompt", "messages", "output_tokens")
    and one.name not in ("prompt_token_ids", "prompt_keys", "label", "origin", "want_text", "streams")
)
"""Fields that came later count where they are set, so that the hash of an older workload stays."""


def _canonical(params: SamplingParams) -> bytes:
    return repr(params).encode("utf-8", "backslashreplace")
