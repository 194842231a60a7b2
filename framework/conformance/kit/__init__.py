"""What the checks stand on: random traces, shadow memory, served runs, the search for a small failing case."""
