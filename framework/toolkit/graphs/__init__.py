"""Parts for graph strategies: the sizes to capture."""
