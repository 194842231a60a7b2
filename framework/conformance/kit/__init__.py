"""The base of the checks: random traces, shadow memory, served runs, the search for a small failing case."""
