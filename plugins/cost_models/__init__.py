"""How long a step takes on a device that is not here: one cost model per file."""
