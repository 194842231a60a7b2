"""Values in the grammar of Hydra's overrides: the only place that writes it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from hydra._internal.grammar.utils import escape_special_characters
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

_PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_][\w./-]*", re.IGNORECASE | re.ASCII)
_PLAIN_KEY = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_][a-z0-9_]*")


def quote(value: Any) -> str:
    """`value` (text, number, bool, None, and lists and mappings of these) as Hydra reads it back.

    Raises:
        ValueError: a key of a mapping that the grammar cannot hold, such as one with a quotation mark.
    """
    if isinstance(value, QuotedString):  # of Hydra's parser, which keeps the mark that was typed
        return str(value.with_quotes())
    if isinstance(value, str):
        return str(QuotedString(value, Quote.single).with_quotes())
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(key)}:{quote(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(quote(inner) for inner in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)


def short(value: Any) -> str:
    """As `quote`, but a text that needs no quotation marks has none: `mlfq` as it was typed."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return quote(value)


def _key(key: Any) -> str:
    """A key of a mapping, which Hydra takes without quotation marks only."""
    if isinstance(key, str) and _PLAIN_KEY.fullmatch(key):
        return key
    text = escape_special_characters(key) if isinstance(key, str) else quote(key)
    try:
        read = OverridesParser.create().parse_override(f"x={{{text}:0}}").value()
    except HydraException:
        read = None
    if not isinstance(read, dict) or list(read) != [key] or type(next(iter(read))) is not type(key):
        raise ValueError(f"{key!r} cannot be a key in an override of Hydra's; use letters, digits and _")
    return text
