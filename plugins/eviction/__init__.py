"""Eviction policies: which cached KV block is dropped first."""
