"""Block accesses a second of each policy on the flat stream of a trace, cache included, on one core.

    python experiments/eviction_oracle/speed.py --trace ../shared/traces/mooncake_conversation.jsonl

Writes speed.csv beside this file: best and median of the repeats, in CPU time, since a neighbour on the machine slows
every repeat that it meets.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.records.analysis.block_cache import replay_flat
from framework.registry import EVICTIONS
from framework.registry.discovery import discover


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, required=True, help="JSON lines with hash_ids, as Mooncake released them")
    parser.add_argument("--num-blocks", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--policies", nargs="+", help="default: all")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    discover()
    chains = [json.loads(line)["hash_ids"] for line in args.trace.read_text().splitlines()]
    with Path(__file__).with_name("speed.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["policy", "num_blocks", "best_accesses_per_s", "median_accesses_per_s"])
        for name in args.policies or EVICTIONS.names():
            for num_blocks in args.num_blocks:
                speeds = []
                for _ in range(args.repeats):
                    policy = EVICTIONS.get(name)()
                    started = time.process_time()
                    lookups = replay_flat(policy, chains, num_blocks).lookups
                    speeds.append(lookups / (time.process_time() - started))
                row = (name, num_blocks, round(max(speeds), -3), round(statistics.median(speeds), -3))
                writer.writerow([name, num_blocks, *(int(speed) for speed in row[2:])])
                file.flush()
                print(*row, sep="\t", flush=True)


if __name__ == "__main__":
    main()
