"""The step loop and who owns memory: requests, plans, the KV cache. Nothing here loads torch."""
