"""Write small_trace.csv, the trace of the study's small form: 40 requests in the format of the Azure traces.

    python experiments/schedulers_slo/small_trace.py

Drawn with seed 20261124; nothing in it comes from the published trace.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path

SEED, NUM_REQUESTS = 20261124, 40


def main() -> None:
    rng = random.Random(SEED)
    time = datetime(2026, 1, 1)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for _ in range(NUM_REQUESTS):
        prompt = max(4, min(4000, round(rng.lognormvariate(6.6, 0.9))))
        lines.append(f"{time.isoformat(sep=' ', timespec='microseconds')},{prompt},{rng.randint(8, 80)}")
        time += timedelta(seconds=rng.expovariate(20))
    Path(__file__).with_name("small_trace.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
