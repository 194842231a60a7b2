"""One rank of an engine: what it resolved, its weights and cache, and the runner of its steps."""
