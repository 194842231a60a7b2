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
    "longrope": ("short_factor", "long_factor"),
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
    longest: int | None = None
    """The longest sequence that these frequencies are for, where type and factor do not say it."""
    partial: float = 1.0
    """The share of each head, from its start, that is rotated."""
    interleaved: bool = False
    """Whether neighbours are turned as pairs, (0, 1), (2, 3), ...; otherwise i and i + H/2 are a pair."""

    @classmethod
    def from_hf(
        cls,
        config: Mapping[str, Any],
        *,
        max_model_len: int | None = None,
        may_be_partial: bool = False,
        interleaved: bool = False,
    ) -> RopeConfig:
        """Read `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before).

        Where a config has both, `rope_scaling` replaces all of `rope_parameters`, as in `transformers`. Adding YaRN's
        `rope_scaling` to a newer config, as model cards advise, has this effect.

        Args:
            max_model_len: the longest sequence that will run, which chooses between the two lists of longrope.
            may_be_partial: whether `transformers` follows `partial_rotary_factor` in this family.
            interleaved: see the field.

        Raises:
            ValueError: for an unknown type, a missing setting, one of a wrong type or range, or a rotation of part of
                the head in a family that has none.
        """
        rope = section(config, "rope_scaling") or section(config, "rope_parameters")
        rope_type = rope.get("rope_type") or rope.get("type") or "default"
        if rope_type not in SUPPORTED_ROPE_TYPES:
            raise ValueError(
                f"rope_type={rope_type!r} is not supported; supported are {', '.join(SUPPORTED_ROPE_TYPES)}"
            )
        if missing := [key for key in _REQUIRED.get(rope_type, ()) if rope.get(key) is None]:
            raise ValueError(f"rope_type={rope_type!r} needs {', '.join(missing)} in rope_parameters")
        partial = number(config, "partial_rotary_factor", 1.0, at_least=0)
        partial = number(rope, "partial_rotary_factor", partial, at_least=0)
        if partial != 1.0 and not (may_be_partial and 0 < partial < 1):
            supported = "above 0 and up to 1.0 are" if may_be_partial else "only 1.0 (the whole head) is in this family"
            raise ValueError(f"partial_rotary_factor={partial} is not supported; {supported}")
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
        divisors, longest = _divisors(rope, original, max_model_len) if rope_type == "longrope" else (None, None)
        if rope_type == "longrope" and rope.get("factor") is None:
            rope["factor"] = max_position / original
        return cls(
            rope_type=rope_type,
            rope_theta=theta,
            original_max_position=original,
            truncate=flag(rope, "truncate", True),
            divisors=divisors,
            longest=longest,
            partial=partial,
            interleaved=interleaved,
            **{key: number(rope, key, at_least=_TINY) for key in scales if rope.get(key) is not None},
            **{key: number(rope, key, at_least=0) for key in ("mscale", "mscale_all_dim") if rope.get(key) is not None},
        )

    def max_model_len(self, max_position: int) -> int:
        """The longest sequence that the scaling makes room for, given the config's `max_position_embeddings`."""
        if self.longest is not None:
            return min(self.longest, max_position)
        if self.rope_type in ("linear", "dynamic", "yarn"):
            return max(max_position, int(self.original_max_position * self.factor))
        return max_position


def _divisors(
    rope: Mapping[str, Any], original: int, max_model_len: int | None
) -> tuple[tuple[float, ...], int | None]:
    """The list that runs, and the longest sequence that it is for where that is not any.

    `transformers` takes the short list until a sequence outgrows the original length, and the long list from then on,
    for all of its positions. No KV cache can follow that. So one list runs: the short one if no sequence may be longer
    than the original length, which is also what an open `max_model_len` gets, and else the long one for every sequence.
    """
    lists = {}
    for key in ("short_factor", "long_factor"):
        if not isinstance(rope[key], list | tuple):
            raise ValueError(f"{key}={rope[key]!r} must be a list of numbers; correct the config")
        lists[key] = tuple(number({key: item}, key, at_least=_TINY) for item in rope[key])
    if lists["short_factor"] == lists["long_factor"]:  # as in what Llama 3.1 becomes in a GGUF file
        return lists["long_factor"], None
    if max_model_len is None or max_model_len <= original:
        return lists["short_factor"], original
    warnings.warn(
        f"max_model_len={max_model_len} is above {original}, so every sequence runs on longrope's long_factor; "
        f"transformers runs sequences of up to {original} tokens on short_factor, as max_model_len={original} does",
        stacklevel=2,
    )
    return lists["long_factor"], None


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
