"""The settings of rotary position embeddings, from either form that Hugging Face configs have had."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framework.models.layers.config_values import flag, integer, number, section

SUPPORTED_ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")

_DEFAULT_THETA = 10_000.0
_TINY = 1e-9
_REQUIRED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor", "attention_factor"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Names are as in `transformers`. A field that its `rope_type` doesn't use keeps its default."""

    rope_type: str = "default"
    rope_theta: float = 10_000.0
    original_max_position: int
    """The number of tokens that the model was trained on before any scaling."""
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    divisors: tuple[float, ...] | None = None
    """For longrope, the divisor of each of the H/2 inverse frequencies."""

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> RopeConfig:
        """Read `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before).

        Where a config has both, `rope_scaling` replaces all of `rope_parameters`, as in `transformers`. Adding YaRN's
        `rope_scaling` to a newer config, as model cards advise, has this effect.

        Raises:
            ValueError: for an unknown type, a missing setting, one of a wrong type or range, or a rotation of part of
                the head only.
        """
        rope = section(config, "rope_scaling") or section(config, "rope_parameters")
        rope_type = rope.get("rope_type") or rope.get("type") or "default"
        if rope_type not in SUPPORTED_ROPE_TYPES:
            raise ValueError(
                f"rope_type={rope_type!r} is not supported; supported are {', '.join(SUPPORTED_ROPE_TYPES)}"
            )
        if missing := [key for key in _REQUIRED.get(rope_type, ()) if rope.get(key) is None]:
            raise ValueError(f"rope_type={rope_type!r} needs {', '.join(missing)} in rope_parameters")
        for place in (rope, config):
            if (partial := number(place, "partial_rotary_factor", 1.0, at_least=0)) != 1.0:
                raise ValueError(f"partial_rotary_factor={partial} is not supported; only 1.0 (the whole head) is")
        _warn_of_a_lost_theta(config, rope)
        max_position = integer(config, "max_position_embeddings")
        original_of = "original_max_position_embeddings"
        original = max_position
        if rope_type not in ("default", "linear", "dynamic"):
            original = integer(config, original_of, integer(rope, original_of, max_position))
        if rope_type == "yarn" and rope.get("factor") is None:
            rope["factor"] = max_position / original
        theta = number(rope, "rope_theta", number(config, "rope_theta", _DEFAULT_THETA, at_least=_TINY), at_least=_TINY)
        scales = ("factor", "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow")
        return cls(
            rope_type=rope_type,
            rope_theta=theta,
            original_max_position=original,
            truncate=flag(rope, "truncate", True),
            divisors=_divisors(rope) if rope_type == "longrope" else None,
            **{key: number(rope, key, at_least=_TINY) for key in scales if rope.get(key) is not None},
            **{key: number(rope, key, at_least=0) for key in ("mscale", "mscale_all_dim") if rope.get(key) is not None},
        )

    def max_model_len(self, max_position: int) -> int:
        """The longest sequence that the scaling makes room for, given the config's `max_position_embeddings`."""
        if self.rope_type in ("linear", "dynamic", "yarn"):
            return max(max_position, int(self.original_max_position * self.factor))
        return max_position


def _divisors(rope: Mapping[str, Any]) -> tuple[float, ...]:
    """Both lists of `longrope` where they are one, as in what Llama 3.1 becomes in a GGUF file."""
    short, long = rope["short_factor"], rope["long_factor"]
    if not isinstance(short, list | tuple) or short != long:
        raise ValueError(
            "rope_type='longrope' is supported only where short_factor and long_factor are the same list; "
            "with two lists frequencies change in the middle of a sequence, which no KV cache can follow"
        )
    return tuple(number({"long_factor": item}, "long_factor", at_least=_TINY) for item in long)


def _warn_of_a_lost_theta(config: Mapping[str, Any], rope: Mapping[str, Any]) -> None:
    if not config.get("rope_scaling") or "rope_theta" in rope or config.get("rope_theta") is not None:
        return
    theta = section(config, "rope_parameters").get("rope_theta", _DEFAULT_THETA)
    if theta != _DEFAULT_THETA:
        warnings.warn(
            f"rope_scaling replaces rope_parameters, as in transformers, and with it rope_theta={theta}: "
            f"{_DEFAULT_THETA:g} is used; write rope_theta into rope_scaling to keep it",
            stacklevel=2,
        )
