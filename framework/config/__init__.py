"""Typed configuration: from `__init__` signatures and dataclasses to checked Hydra configs."""
