"""For eviction policies: queues of blocks, and their reuse."""
