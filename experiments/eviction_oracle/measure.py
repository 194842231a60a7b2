"""Every eviction policy on a block trace: hit rates beside libCacheSim's, and hit rates on prefix chains.

    python experiments/eviction_oracle/measure.py --trace ../shared/traces/mooncake_conversation.jsonl

Writes results.csv beside this file; a row per policy and cache size.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import libcachesim as lcs

from framework.records.analysis.block_cache import replay_chains, replay_flat
from framework.registry import EVICTIONS
from framework.registry.discovery import discover

# (label, policy, parameters, class in libCacheSim with the same parameters)
POLICIES: list[tuple[str, str, dict[str, Any], str]] = [
    ("random", "random", {}, ""),
    ("fifo", "fifo", {}, "FIFO"),
    ("lru", "lru", {}, "LRU"),
    ("lfu", "lfu", {}, "LFU"),
    ("lfu ghost_ratio=1", "lfu", {"ghost_ratio": 1.0}, ""),
    ("slru", "slru", {}, ""),
    ("slru num_segments=4 fill=spread", "slru", {"num_segments": 4, "fill": "spread"}, "SLRU"),
    ("two_queue", "two_queue", {}, "TwoQ"),
    ("s3fifo", "s3fifo", {}, ""),
    ("s3fifo fill=main", "s3fifo", {"fill": "main"}, "S3FIFO"),
    ("sieve", "sieve", {}, "Sieve"),
    ("arc", "arc", {}, "ARC"),
    ("length_aware", "length_aware", {}, ""),
    ("cost_aware", "cost_aware", {}, ""),
    ("workload_aware", "workload_aware", {}, ""),
    ("belady", "belady", {}, "Belady"),
]
COLUMNS = ["policy", "num_blocks", "flat_hit_rate", "libcachesim_hit_rate", "prefix_hit_rate"]


def library_hit_rate(name: str, keys: list[int], next_uses: list[int], num_blocks: int) -> float:
    cache = getattr(lcs, name)(cache_size=num_blocks, hashpower=20)
    request, hits = lcs.Request(), 0
    request.obj_size = 1
    for key, next_use in zip(keys, next_uses, strict=True):
        request.obj_id, request.next_access_vtime = key, next_use
        hits += cache.get(request)
    return hits / len(keys)


def uses_after(keys: list[int]) -> list[int]:
    """For each access, the index of the next one to the same key."""
    following: dict[int, int] = {}
    found = [1 << 62] * len(keys)
    for index in range(len(keys) - 1, -1, -1):
        found[index] = following.get(keys[index], found[index])
        following[keys[index]] = index
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, required=True, help="JSON lines with hash_ids, as Mooncake released them")
    parser.add_argument("--num-blocks", type=int, nargs="+", default=[1_000, 5_859, 10_000, 30_000, 50_000, 100_000])
    args = parser.parse_args()
    discover()
    chains = [json.loads(line)["hash_ids"] for line in args.trace.read_text().splitlines()]
    keys = [key for chain in chains for key in chain]
    next_uses = uses_after(keys)
    with Path(__file__).with_name("results.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for label, name, parameters, library in POLICIES:
            for num_blocks in args.num_blocks:
                flat = replay_flat(EVICTIONS.get(name)(**parameters), chains, num_blocks)
                theirs = f"{library_hit_rate(library, keys, next_uses, num_blocks):.4f}" if library else ""
                prefix = replay_chains(EVICTIONS.get(name)(**parameters), chains, num_blocks).hit_rate
                row = (label, num_blocks, f"{flat.hit_rate:.4f}", theirs, f"{prefix:.4f}")
                writer.writerow(row)
                file.flush()
                print(*row, sep="\t", flush=True)


if __name__ == "__main__":
    main()
