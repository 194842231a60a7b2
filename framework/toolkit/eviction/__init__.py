"""Parts for eviction policies: queues of blocks, and how likely blocks are to be reused."""
