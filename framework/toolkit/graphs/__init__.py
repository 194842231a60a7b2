"""For graph strategies: sizes to capture."""
