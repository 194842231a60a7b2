"""One line of a `jsonl` workload: a malformed one ends the run with file:line, a refused one only its request."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest
from framework.workloads.arrivals import MAX_SECONDS

PROMPT_KEYS = ("prompt", "messages", "prompt_token_ids")
REQUEST_KEYS = ("arrival_s", "priority", "client", "category", "deadline_s")
PARAM_KEYS = tuple(f.name for f in dataclasses.fields(SamplingParams))


def request_from_line(line: str, where: str, defaults: Mapping[str, object]) -> TimedRequest:
    """Parse `line`, read from `where` ("file:number"); `defaults` are sampling parameters that it need not name.

    A value that the engine would refuse (a negative temperature, text together with ids) leaves its message in the
    request's `error`, so that the others run.

    Raises:
        ValueError: for JSON that cannot be read, an unknown key, a wrong type, or a line without a prompt.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg} at column {error.colno}); expected an object") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise ValueError(f"{where}: not JSON that can be read ({error}); expected an object") from error
    if not isinstance(row, dict):
        raise ValueError(f'{where}: expected an object such as {{"prompt": "..."}}, not {type(row).__name__}')
    if unknown := [key for key in row if key not in PROMPT_KEYS + REQUEST_KEYS + PARAM_KEYS]:
        known = ", ".join(PROMPT_KEYS + REQUEST_KEYS + PARAM_KEYS)
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; expected some of {known}")
    row = {key: value for key, value in row.items() if value is not None}
    given = [key for key in PROMPT_KEYS if key in row]
    if not given:
        raise ValueError(f"{where}: no prompt; expected one of {', '.join(PROMPT_KEYS)}")
    for key, value in row.items():
        if not _has_type(key, value):
            raise ValueError(f"{where}: {key}={_short(value)} has the wrong type; expected {_EXPECTED[key]}")
    fields: dict[str, Any] = {key: row[key] for key in (*PROMPT_KEYS, *REQUEST_KEYS) if key in row}
    if not 0 <= (arrival_s := fields.get("arrival_s", 0)) <= MAX_SECONDS:
        raise ValueError(f"{where}: arrival_s={arrival_s} must be at least 0 and at most {MAX_SECONDS:g} s")
    if len(given) > 1:
        fields["error"] = f"{where}: takes exactly one of {', '.join(PROMPT_KEYS)}; it has {' and '.join(given)}"
    params: dict[str, Any] = {**defaults, **{key: row[key] for key in PARAM_KEYS if key in row}}
    if "logit_bias" in params:  # JSON has string keys only
        params["logit_bias"] = {int(key): value for key, value in params["logit_bias"].items()}
    try:
        fields["params"] = SamplingParams(**params)
    except ValueError as error:
        fields.setdefault("error", f"{where}: {error}")
    return TimedRequest(**fields)


_EXPECTED = {
    "prompt": "a string",
    "messages": 'a list of {"role": string, "content": string, list of objects or null}',
    "prompt_token_ids": "a list of integers",
    **dict.fromkeys(("client", "category"), "a string"),
    "logit_bias": 'an object {"token id": number}',
    "stop": "a string or a list of strings",
    "stop_token_ids": "a list of integers",
    "ignore_eos": "true or false",
    **dict.fromkeys(("priority", "top_k", "seed", "max_tokens", "logprobs"), "an integer"),
    **dict.fromkeys(("arrival_s", "deadline_s", "temperature", "top_p", "min_p"), "a finite number"),
    **dict.fromkeys(("repetition_penalty", "presence_penalty", "frequency_penalty"), "a finite number"),
}
assert set(_EXPECTED) == {*PROMPT_KEYS, *REQUEST_KEYS, *PARAM_KEYS}


def _has_type(key: str, value: object) -> bool:
    expected = _EXPECTED[key]
    if expected == "a string":
        return isinstance(value, str)
    if expected == "an integer":
        return _is_int(value)
    if expected == "a finite number":
        return _is_number(value)
    if expected == "true or false":
        return isinstance(value, bool)
    if expected == "a list of integers":
        return isinstance(value, list) and all(map(_is_int, value))
    if key == "stop":
        return isinstance(value, str) or (isinstance(value, list) and all(isinstance(s, str) for s in value))
    if key == "logit_bias":
        return isinstance(value, dict) and all(k.isdecimal() and _is_number(v) for k, v in value.items())
    return isinstance(value, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and _is_content(m.get("content")) for m in value
    )


def _is_content(value: object) -> bool:
    """A text, nothing (where a message calls tools), or a list of parts: what chat templates take."""
    return (
        isinstance(value, str) or value is None or (isinstance(value, list) and all(isinstance(p, dict) for p in value))
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _short(value: object, limit: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[:limit] + "..."
