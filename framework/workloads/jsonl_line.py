"""One line of a `jsonl` workload: a malformed one ends the run with file:line, a bad value only its request."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest
from framework.workloads.arrivals import MAX_SECONDS

PROMPT_KEYS = ("prompt", "messages", "prompt_token_ids")
OBJECTIVES = ("ttft_slo_s", "tpot_slo_s", "e2e_slo_s", "weight")
REQUEST_KEYS = ("arrival_s", "priority", "client", "category", "session", "deadline_s", "output_tokens", *OBJECTIVES)
PARAM_KEYS = tuple(f.name for f in dataclasses.fields(SamplingParams))


def request_from_line(line: str, where: str, defaults: Mapping[str, object]) -> TimedRequest:
    """Parse `line`, read from `where` ("file:number"). `defaults` are sampling parameters for what it does not name.

    Some mistakes would refuse a single request of the Python API too: a wrong sampling parameter, text together with
    ids, half a surrogate pair. They leave a message in the request's `error`, so that the others run.

    Raises:
        ValueError: the JSON cannot be read, a key is unknown, the prompt is missing, or the type of anything but a
            sampling parameter is wrong.
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
        if key in _EXPECTED and not _has_type(key, value):
            raise ValueError(f"{where}: {key}={_short(value)} has the wrong type; expected {_EXPECTED[key]}")
    broken = next((text for text in _strings(row) if not _is_unicode(text)), None)
    row = row if broken is None else json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
    fields: dict[str, Any] = {key: row[key] for key in (*PROMPT_KEYS, *REQUEST_KEYS) if key in row}
    if not 0 <= (arrival_s := fields.get("arrival_s", 0)) <= MAX_SECONDS:
        raise ValueError(f"{where}: arrival_s={arrival_s} must be at least 0 and at most {MAX_SECONDS:g} s")
    if len(given) > 1:
        fields["error"] = f"{where}: takes exactly one of {', '.join(PROMPT_KEYS)}; it has {' and '.join(given)}"
    if broken is not None:
        fields["error"] = f"{where}: {_short(broken)} holds half of a surrogate pair; leave it out"
    params: dict[str, Any] = {**defaults, **{key: row[key] for key in PARAM_KEYS if key in row}}
    try:
        if isinstance(biases := params.get("logit_bias"), dict):  # JSON has string keys only
            params["logit_bias"] = {int(key) if key.isdecimal() else key: value for key, value in biases.items()}
        fields["params"] = SamplingParams(**params)
    except ValueError as error:
        fields.setdefault("error", f"{where}: {error}")
    return TimedRequest(**fields)


_EXPECTED = {
    "prompt": "a string",
    "messages": 'a list of {"role": string, "content": string, list of objects or null}',
    "prompt_token_ids": "a list of integers",
    **dict.fromkeys(("client", "category", "session"), "a string"),
    **dict.fromkeys(("priority", "output_tokens"), "an integer"),
    **dict.fromkeys(("arrival_s", "deadline_s", *OBJECTIVES), "a finite number"),
}
assert set(_EXPECTED) == {*PROMPT_KEYS, *REQUEST_KEYS}
"""Sampling parameters are checked by `SamplingParams`."""


def _has_type(key: str, value: object) -> bool:
    expected = _EXPECTED[key]
    if expected == "a string":
        return isinstance(value, str)
    if expected == "an integer":
        return _is_int(value)
    if expected == "a finite number":
        return _is_number(value)
    if expected == "a list of integers":
        return isinstance(value, list) and all(map(_is_int, value))
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


def _strings(value: object) -> Iterator[str]:
    """All strings in a value from JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)


def _is_unicode(text: str) -> bool:
    """Not so with half of a surrogate pair, which JSON can escape."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: object, limit: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "..."
