"""Three FIFO queues: a small one for new blocks, the main one, and one that remembers what left the small one."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from framework.interfaces.eviction import CachedBlock
from framework.registry import EVICTIONS
from framework.toolkit.eviction.block_queue import BlockQueue
from framework.toolkit.eviction.queues import QueuePolicy

_MAX_FREQUENCY = 3  # two bits
_Fill = Literal["small", "main"]


@EVICTIONS.register("s3fifo")
class S3FIFO(QueuePolicy):
    """S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP'23).

    Args:
        small_ratio: share of the cached blocks that the small queue may keep.
        ghost_ratio: blocks remembered after they left the small queue, as a multiple of the cached ones.
        promote_at: hits in the small queue that let a block into the main one.
        fill: where blocks beyond the small queue's share go before the first eviction: into it too, as in the paper, or
            into the main queue, as in the authors' simulator libCacheSim since 2024.
    """

    def __init__(
        self, *, small_ratio: float = 0.1, ghost_ratio: float = 0.9, promote_at: int = 2, fill: _Fill = "small"
    ) -> None:
        if not (0 < small_ratio < 1 and ghost_ratio >= 0 and 1 <= promote_at <= _MAX_FREQUENCY):
            given = f"eviction.small_ratio={small_ratio}, ghost_ratio={ghost_ratio}, promote_at={promote_at}"
            raise ValueError(f"{given} must be in (0, 1), at least 0 and 1 to 3; the paper takes 0.1, 0.9 and 2")
        super().__init__()
        self._small_ratio, self._ghost_ratio, self._promote_at = small_ratio, ghost_ratio, promote_at
        self._split_pending = fill == "main"
        self._small, self._main = BlockQueue(), BlockQueue()
        self._frequency: dict[int, int] = {}  # by block id, in the queue where it is now
        self._ghosts: OrderedDict[int | None, bool] = OrderedDict()  # content hashes

    def on_insert(self, block: CachedBlock) -> None:
        self._frequency[block.id] = 0
        self._enqueue(block, self._main if self._ghosts.pop(block.hash, False) else self._small)

    def on_hit(self, block: CachedBlock) -> None:
        frequency = self._frequency[block.id]
        if frequency < _MAX_FREQUENCY:
            self._frequency[block.id] = frequency + 1

    def evict(self) -> CachedBlock:
        small, main, frequency, num_blocks = self._small, self._main, self._frequency, len(self._queue_of)
        share = self._small_ratio * num_blocks
        if self._split_pending:
            self._split_pending = False
            for young in list(small.blocks.values())[int(share) :]:
                self._enqueue(young, main)
        while len(self._ghosts) > self._ghost_ratio * num_blocks:
            self._ghosts.popitem(last=False)
        while True:
            small_first = small.num_members + 1 > share or not main.blocks  # at least the share, rounded down
            block = (self._take_first(small) if small_first else None) or self._take_first(main)
            if block is None:
                continue  # what main had cannot be evicted now, so small has one
            block_id = block.id
            if self._queue_of[block_id] is small:
                if frequency[block_id] < self._promote_at:
                    self._ghosts[block.hash] = True
                    return self._forget(block)
                frequency[block_id] = 0
                self._enqueue(block, main)
            elif not frequency[block_id]:
                return self._forget(block)
            else:
                frequency[block_id] -= 1
                main.blocks[block_id] = block
