"""Whether a model can be split over a number of ranks, and what a rank gets of it."""

from __future__ import annotations

import dataclasses

from framework.interfaces.errors import IncompatibleError
from framework.models.config import ModelConfig


def possible_sizes(config: ModelConfig) -> list[int]:
    """Every number of ranks that `config` can be split over, ascending."""
    return [size for size in range(1, config.num_heads + 1) if _reason(config, size) is None]


def check_split(config: ModelConfig, size: int) -> None:
    """Refuse a number of ranks that the model cannot be split over.

    Raises:
        IncompatibleError: naming what does not divide and every `executor.tp` that works.
    """
    reason = _reason(config, size)
    if reason is not None:
        sizes = ", ".join(map(str, possible_sizes(config)))
        raise IncompatibleError(f"executor.tp={size}: {reason}; this model runs with executor.tp={sizes}")


def config_of_rank(config: ModelConfig, size: int) -> ModelConfig:
    """`config` with the heads, features and vocabulary of one of `size` ranks, rounded up where they differ.

    With fewer KV heads than ranks, several ranks hold the same one.
    """
    experts = config.experts
    return dataclasses.replace(
        config,
        experts=None if experts is None else dataclasses.replace(experts, size=experts.size // size),
        num_heads=config.num_heads // size,
        num_kv_heads=max(1, config.num_kv_heads // size),
        intermediate_size=config.intermediate_size // size,
        vocab_size=-(-config.vocab_size // size),
    )


def _reason(config: ModelConfig, size: int) -> str | None:
    if config.num_heads % size:
        return f"{config.num_heads} attention heads do not divide evenly"
    few, many = sorted((config.num_kv_heads, size))
    if many % few:
        return f"{config.num_kv_heads} KV heads can be neither divided nor replicated evenly"
    if config.intermediate_size % size:
        return f"intermediate_size {config.intermediate_size} does not divide evenly"
    if config.experts is not None and config.experts.size % size:
        return f"the {config.experts.size} features of an expert do not divide evenly"
    return None
