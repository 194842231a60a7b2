"""Hit rates of every policy and cache size without an engine: requests one after the other, nothing held, no outputs.

    python experiments/eviction_mooncake/replay.py --trace conversation_trace.jsonl

Writes replay.csv beside this file: of the first 3,000 requests, which the sweep serves, and of the whole trace.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.records.analysis.block_cache import replay_chains
from framework.registry import EVICTIONS
from framework.registry.discovery import discover

SIZES = (1_000, 3_000, 5_859, 10_000, 20_000, 30_000, 50_000, 100_000)
COLUMNS = ["requests", "policy", "seed", "num_blocks", "block_hit_rate"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, required=True, help="JSON lines with hash_ids, as Mooncake released them")
    args = parser.parse_args()
    discover()
    chains = [json.loads(line)["hash_ids"] for line in args.trace.read_text().splitlines()]
    with Path(__file__).with_name("replay.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for num_requests in (3_000, len(chains)):
            for policy in EVICTIONS.names():
                for seed in range(5) if policy == "random" else [0]:
                    for size in SIZES:
                        parameters = {"seed": seed} if policy == "random" else {}
                        built = EVICTIONS.build({"name": policy, **parameters})
                        stats = replay_chains(built, chains[:num_requests], size)
                        writer.writerow([num_requests, policy, seed, size, f"{stats.hit_rate:.4f}"])
                file.flush()


if __name__ == "__main__":
    main()
