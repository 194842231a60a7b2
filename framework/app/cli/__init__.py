"""Commands of `python -m framework`."""
