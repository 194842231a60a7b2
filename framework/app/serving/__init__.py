"""A server around an engine: HTTP in a process of its own, the engine in the one that keeps the record."""
