"""A server around an engine. HTTP has its own process, and the engine is in the process that keeps the record."""
