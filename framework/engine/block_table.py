"""The KV memory of one request: its blocks in order, and how far the prefix cache knows them."""

from __future__ import annotations

from dataclasses import dataclass, field

from framework.engine.block import Block
from framework.interfaces.prompt_keys import Content

EVERYTHING = 1 << 62


@dataclass(slots=True, eq=False, kw_only=True)
class BlockTable:
    """Written by `KVCache` alone, except for `num_sent_blocks`, which the plan counts up."""

    blocks: list[Block] = field(default_factory=list)
    capacity_tokens: int = 0
    """Tokens that `blocks` hold: len(blocks) * block_size."""
    num_sent_blocks: int = 0
    """Leading blocks that the executor knows of."""
    hashes: list[int] = field(default_factory=list)
    """Chained hashes of the leading full blocks, as far as they were asked for. They outlive a preemption."""
    contents: list[Content] = field(default_factory=list)
    """The contents of the same blocks, with which a lookup is compared."""
    matched: list[Block] = field(default_factory=list)
    """While the request waits: the cached prefix that it found last."""
    matched_serials: list[int] = field(default_factory=list)
    """The serials that the blocks of `matched` had then."""
    num_committed: int = 0
    """Leading full blocks already offered to the prefix cache."""
    commit_at_tokens: int = 0
    """Computed and known tokens at which the next block can be offered."""
    shareable_tokens: int = EVERYTHING
    """Leading tokens whose blocks the prefix cache can hold: all, or those that keys stand for."""
    readable_tokens: int = EVERYTHING
    """Leading tokens that may come from the prefix cache. It holds no logits, so a position whose log-probability is
    wanted has to be computed."""
