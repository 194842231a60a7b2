"""Attention backends: causal attention over the paged KV cache."""
