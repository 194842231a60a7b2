"""Mooncake's published request traces."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from framework.registry import WORKLOADS
from framework.workloads.traces.trace_fields import json_object, seconds, short, whole
from framework.workloads.traces.trace_row import TraceRow
from framework.workloads.traces.trace_workload import TraceWorkload

KEY_TOKENS = 512
MAX_KEY = 2**62
"""The largest key in a file. Keys of later passes count on from it, within 64 bits."""


@WORKLOADS.register("mooncake")
class Mooncake(TraceWorkload):
    """A Mooncake trace (FAST'25): a JSON object per line with timestamp (ms), input_length, output_length, hash_ids.

    Each hash id stands for 512 tokens of the prompt together with everything before them; the last one may stand for
    fewer. Prompts that begin with the same ids begin with the same tokens. Few timestamps are distinct (1,180 of 12,031
    in the conversation trace): requests of one timestamp arrive at once, in the order of the file.
    """

    source = (
        "conversation_trace.jsonl and others of Mooncake's FAST'25 release, on GitHub in kvcache-ai/Mooncake under "
        "FAST25-release/traces"
    )

    def parser(self, header: str) -> Callable[[str], TraceRow]:
        return _row


def _row(line: str) -> TraceRow:
    row = json_object(line, ("timestamp", "input_length", "output_length", "hash_ids"))
    prompt_tokens = whole("input_length", row["input_length"], 1)
    keys = key_array("hash_ids", row["hash_ids"])
    if len(keys) != (expected := -(-prompt_tokens // KEY_TOKENS)):
        raise ValueError(
            f"{len(keys)} hash_ids for input_length={prompt_tokens}, which has {expected} blocks of {KEY_TOKENS} tokens"
        )
    return TraceRow(
        time_s=seconds("timestamp", row["timestamp"]) / 1e3,
        prompt_tokens=prompt_tokens,
        output_tokens=whole("output_length", row["output_length"], 1),
        keys=keys,
        key_tokens=KEY_TOKENS,
    )


def key_array(name: str, value: object) -> array[int]:
    """A list of keys, integers of at least 0."""
    if not isinstance(value, list):
        raise ValueError(f"{name}={short(value)} must be a list of integers")
    for key in value:
        if whole(name, key, 0) >= MAX_KEY:
            raise ValueError(f"{name}: key {key} must be below {MAX_KEY}")
    return array("q", value)
