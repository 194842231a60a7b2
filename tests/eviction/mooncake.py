"""The Mooncake conversation trace (FAST'25 release), as the chain of block keys of each request."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "../shared/traces/mooncake_conversation.jsonl"


@functools.cache
def chains() -> list[list[int]]:
    if not PATH.exists():
        pytest.skip(f"needs the trace {PATH.name} in ../shared/traces")
    return [json.loads(line)["hash_ids"] for line in PATH.read_text().splitlines()]
