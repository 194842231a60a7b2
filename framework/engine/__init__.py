"""The step loop and the owners of memory: requests, plans, the KV cache. Nothing here loads torch."""
