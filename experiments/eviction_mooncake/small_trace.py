"""Write small_trace.jsonl, the trace of the study's small form: 40 turns of 8 conversations in Mooncake's format.

    python experiments/eviction_mooncake/small_trace.py

Drawn with seed 20261124; nothing in it comes from the published trace.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

SEED, NUM_REQUESTS, NUM_TALKS, KEY_TOKENS = 20261124, 40, 8, 512


def main() -> None:
    rng = random.Random(SEED)
    talks: list[list[int]] = [[0] for _ in range(NUM_TALKS)]  # all begin with the same system prompt
    num_keys, time_ms = 1, 0
    lines = []
    for _ in range(NUM_REQUESTS):
        talk = rng.randrange(NUM_TALKS)
        grown = rng.randint(1, 6)
        talks[talk] = [*talks[talk], *range(num_keys, num_keys + grown)]
        num_keys += grown
        tokens = len(talks[talk]) * KEY_TOKENS - rng.randrange(KEY_TOKENS)
        line = {
            "timestamp": time_ms,
            "input_length": tokens,
            "output_length": rng.randint(5, 60),
            "hash_ids": talks[talk],
        }
        lines.append(json.dumps(line) + "\n")
        if len(talks[talk]) > 25:
            talks[talk] = [0]
        time_ms += 3000 * rng.randrange(2)  # two at a time, as the trace's ticks have several
    Path(__file__).with_name("small_trace.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
