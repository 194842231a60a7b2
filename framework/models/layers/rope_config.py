"""The settings of rotary position embeddings, from either form that Hugging Face configs have had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SUPPORTED_ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")

_REQUIRED = {"linear": ("factor",), "dynamic": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Named as in `transformers`; a field that its `rope_type` doesn't use keeps its default."""

    rope_type: str = "default"
    rope_theta: float = 10_000.0
    original_max_position: int
    """Tokens that the model was trained on before any scaling."""
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> RopeConfig:
        """From `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).

        Raises:
            ValueError: for an unknown type, a missing setting, or a rotation of part of the head only.
        """
        rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
        rope_type = rope.get("rope_type") or rope.get("type") or "default"
        if rope_type not in SUPPORTED_ROPE_TYPES:
            raise ValueError(
                f"rope_type={rope_type!r} is not supported; supported are {', '.join(SUPPORTED_ROPE_TYPES)}"
            )
        if missing := [key for key in _REQUIRED.get(rope_type, ()) if rope.get(key) is None]:
            raise ValueError(f"rope_type={rope_type!r} needs {', '.join(missing)} in rope_parameters")
        partial = rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
        if partial != 1.0:
            raise ValueError(f"partial_rotary_factor={partial} is not supported; only 1.0 (the whole head) is")
        max_position = config["max_position_embeddings"]
        original = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
        if rope_type in ("default", "linear", "dynamic") or original is None:
            original = max_position
        if rope_type == "yarn" and rope.get("factor") is None:
            rope["factor"] = max_position / original
        optional = ("attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow")
        return cls(
            rope_type=rope_type,
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            original_max_position=int(original),
            truncate=rope.get("truncate", True),
            **{key: float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor") if rope.get(key)},
            **{key: float(rope[key]) for key in optional if rope.get(key) is not None},
        )

    def max_model_len(self, max_position: int) -> int:
        """The longest sequence that the scaling makes room for, given the config's `max_position_embeddings`."""
        if self.rope_type in ("linear", "dynamic", "yarn"):
            return max(max_position, int(self.original_max_position * self.factor))
        return max_position
