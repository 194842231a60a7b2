"""Runs a soak in chunks, so that one that was ended goes on where it was."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def in_chunks(
    chunk: Callable[[int, float, int], dict[str, Any]],
    num_requests: int,
    requests_per_chunk: int,
    seconds: float,
    results: Path,
) -> None:
    """Call `chunk` until the lines of `results` hold so many requests, or so much time has passed.

    Args:
        chunk: called with a number of requests, a time limit in seconds and a seed; returns its counts, with `requests`
            among them. The seed is the number of lines in `results`, so that no chunk repeats another.
        results: a file to which each chunk appends one line of JSON.
    """
    end_s = time.monotonic() + seconds
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    while (left_s := end_s - time.monotonic()) > 0:
        lines = results.read_text().splitlines() if results.exists() else []
        left = num_requests - sum(json.loads(line)["requests"] for line in lines)
        if left <= 0:
            break
        begin_s, begin_cpu_s = time.monotonic(), time.process_time()
        counts = chunk(min(left, requests_per_chunk), left_s, len(lines))
        line = {
            "seed": len(lines),
            "commit": commit.stdout.strip(),
            **counts,
            "seconds": round(time.monotonic() - begin_s, 1),
            "cpu_s": round(time.process_time() - begin_cpu_s, 1),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
        print(json.dumps(line), flush=True)
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
