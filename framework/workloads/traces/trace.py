"""A trace of your own: lengths, times, what prompts share, their clients, and how soon they are due."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from framework.registry import WORKLOADS
from framework.workloads.traces.mooncake import KEY_TOKENS, key_array
from framework.workloads.traces.trace_fields import json_object, seconds, short, text, whole
from framework.workloads.traces.trace_row import TraceRow
from framework.workloads.traces.trace_workload import TraceWorkload

REQUIRED = ("time_s", "prompt_tokens", "output_tokens")
OBJECTIVES = ("ttft_slo_s", "tpot_slo_s", "e2e_slo_s", "weight")
OPTIONAL = ("keys", "key_tokens", "client", "category", "session", "priority", *OBJECTIVES, "max_tokens")


@WORKLOADS.register("trace")
class Trace(TraceWorkload):
    """A JSON object per line: time_s, prompt_tokens, output_tokens and, if wanted, what else is known of the request.

    keys: integers, one for each key_tokens (default 512) tokens of the prompt from its beginning, the last one for what
    is left; prompts that begin with the same keys begin with the same tokens. A prompt without keys shares nothing.
    client, category, session: strings. priority: lower runs earlier. ttft_slo_s: seconds from arrival until the first
    token is due. tpot_slo_s, e2e_slo_s: limits of the time per output token and of the whole time. weight: what it is
    worth to meet these. max_tokens: the limit that the sender stated, which policies see; output_tokens is the true
    length, which they do not see.
    """

    source = "workload=mooncake, azure and burstgpt say where theirs are"

    def parser(self, header: str) -> Callable[[str], TraceRow]:
        file_key_tokens: int | None = None

        def row(line: str) -> TraceRow:
            nonlocal file_key_tokens
            values = json_object(line, REQUIRED, OPTIONAL)
            parsed = _row({key: value for key, value in values.items() if value is not None})
            if parsed.keys:
                file_key_tokens = file_key_tokens or parsed.key_tokens
                if parsed.key_tokens != file_key_tokens:
                    raise ValueError(
                        f"key_tokens={parsed.key_tokens}, but {file_key_tokens} above: equal keys mean equal tokens"
                    )
            return parsed

        return row


def _row(values: dict[str, object]) -> TraceRow:
    prompt_tokens = whole("prompt_tokens", values.get("prompt_tokens"), 1)
    keys = key_array("keys", values["keys"]) if "keys" in values else array("q")
    key_tokens = whole("key_tokens", values.get("key_tokens", KEY_TOKENS), 1)
    if keys and len(keys) != (expected := -(-prompt_tokens // key_tokens)):
        raise ValueError(
            f"{len(keys)} keys for prompt_tokens={prompt_tokens}, which has {expected} blocks of {key_tokens} tokens"
        )
    client, category, session = (text(name, values.get(name, "")) for name in ("client", "category", "session"))
    priority = values.get("priority", 0)
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise ValueError(f"priority={short(priority)} must be an integer")
    return TraceRow(
        time_s=seconds("time_s", values.get("time_s")),
        prompt_tokens=prompt_tokens,
        output_tokens=whole("output_tokens", values.get("output_tokens"), 1),
        keys=keys,
        key_tokens=key_tokens,
        client=client,
        category=category,
        session=session,
        priority=priority,
        objectives={name: seconds(name, values[name]) for name in OBJECTIVES if name in values},
        max_tokens=whole("max_tokens", values["max_tokens"], 1) if "max_tokens" in values else None,
    )
