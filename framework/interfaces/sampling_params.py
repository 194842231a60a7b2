"""What a request asks of the sampler and when it ends. Torch-free: the scheduler and the simulator carry it too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

MAX_INT = (1 << 63) - 1
MAX_SEED = (1 << 64) - 1
MAX_FLOAT = 3.4028234e38
"""Samplers compute in float32."""


@dataclass(slots=True, frozen=True, kw_only=True)
class SamplingParams:
    """Sampling and stopping parameters of one request, in the names that vLLM's users know.

    Raises:
        ValueError: at construction, naming the value, its limit and what to pass instead.
    """

    temperature: float = 1.0
    """Logits are divided by it; 0 means greedy."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probabilities sum to at least this."""
    min_p: float = 0.0
    """Drop tokens less likely than this share of the most likely one."""
    repetition_penalty: float = 1.0
    """Divide positive and multiply negative logits of tokens seen in prompt or output (CTRL, arXiv 1909.05858, 4.1)."""
    presence_penalty: float = 0.0
    """Subtracted once from the logit of a token that the output contains."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once for each time the output contains it."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id -> value added to its logit."""
    seed: int | None = None
    """Seed of this request's noise, from 0 to 2^64 - 1; None derives one from the engine's seed and the request id."""
    max_tokens: int = 16
    """Output tokens at most."""
    stop: tuple[str, ...] = ()
    """End when the output text contains one of these; the text is cut before it."""
    stop_token_ids: tuple[int, ...] = ()
    """End when one of these is sampled; it stays in the token ids, not in the text."""
    ignore_eos: bool = False
    """Do not end at the model's end-of-sequence tokens."""
    logprobs: int | None = None
    """None: no log-probabilities. n: those of the sampled token and of the n most likely ones."""

    def __post_init__(self) -> None:
        self._number("temperature", 0, None, "0 for greedy")
        self._integer("top_k", 0, "0 to keep every token")
        self._number("top_p", 0, 1, "1 to keep every token", above=True)
        self._number("min_p", 0, 1, "0 to keep every token")
        self._number("repetition_penalty", 0, None, "1 for none", above=True)
        self._number("presence_penalty", -2, 2, "0 for none")
        self._number("frequency_penalty", -2, 2, "0 for none")
        self._integer("seed", 0, "None to have one derived", MAX_SEED, optional=True)
        self._integer("max_tokens", 1, "1 or more")
        self._integer("logprobs", 0, "None for none", optional=True)
        if not isinstance(self.ignore_eos, bool):
            raise _refusal("ignore_eos", self.ignore_eos, "True or False", "False to end at the model's end token")
        if type(self.logit_bias) is not dict or self.logit_bias:
            self._set("logit_bias", _biases(self.logit_bias))
        if self.stop is not _DEFAULTS["stop"]:
            self._set("stop", _stops(self.stop))
        if self.stop_token_ids is not _DEFAULTS["stop_token_ids"]:
            ids = _items("stop_token_ids", self.stop_token_ids, "a list of token ids")
            self._set("stop_token_ids", tuple(_token_id("stop_token_ids", self.stop_token_ids, one) for one in ids))

    def _number(self, name: str, least: float, most: float | None, remedy: str, *, above: bool = False) -> None:
        value = getattr(self, name)
        if value is _DEFAULTS[name] or (
            type(value) is float and least < value <= (MAX_FLOAT if most is None else most)
        ):
            return
        limit = f"above {least}" if above else f"at least {least}"
        if most is not None:
            limit = f"in {'(' if above else '['}{least}, {most}]"
        if not _is_number(value):
            raise _refusal(name, value, f"a finite number, {limit}", remedy)
        if value < least or (above and value == least) or (most is not None and value > most):
            raise _refusal(name, value, limit, remedy)
        if type(value) not in (int, float):  # numpy has numbers of its own
            self._set(name, float(value))

    def _integer(self, name: str, least: int, remedy: str, most: int = MAX_INT, *, optional: bool = False) -> None:
        value = getattr(self, name)
        if value is _DEFAULTS[name] or (value is None and optional):
            return
        if not _is_integer(value):
            raise _refusal(name, value, f"an integer, at least {least}", remedy)
        if value < least:
            raise _refusal(name, value, f"at least {least}", remedy)
        if value > most:
            raise _refusal(name, value, f"at most {most}", remedy)
        if type(value) is not int:
            self._set(name, int(value))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether a logit depends on the tokens seen so far."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


_DEFAULTS = {one.name: one.default for one in fields(SamplingParams)}


def _stops(given: Any) -> tuple[str, ...]:
    stop = (given,) if isinstance(given, str) else _items("stop", given, "a string or a list of strings")
    if not all(isinstance(text, str) and text for text in stop):
        raise _refusal("stop", given, "of strings, none of them empty", "() for none")
    return stop


def _biases(given: Any) -> dict[int, float]:
    if not isinstance(given, Mapping):
        raise _refusal("logit_bias", given, "a mapping of token ids to numbers", "{} for none")
    biases = {}
    for token_id, bias in given.items():
        if not _is_number(bias):
            raise _refusal("logit_bias", given, f"of finite numbers, but {bias!r} is not one", "-10000 to ban a token")
        biases[_token_id("logit_bias", given, token_id)] = bias if isinstance(bias, int | float) else float(bias)
    return biases


def _items(name: str, given: Any, limit: str) -> tuple[Any, ...]:
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        raise _refusal(name, given, limit, "() for none")
    return tuple(given)


def _token_id(name: str, given: object, value: Any) -> int:
    if not _is_integer(value) or not 0 <= value <= MAX_INT:
        raise _refusal(name, given, f"of token ids, but {value!r} is not one", "integers, at least 0")
    return int(value)


def _is_integer(value: object) -> bool:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def _is_number(value: Any) -> bool:
    """Finite in float32; NaN fails the comparison."""
    if type(value) not in (int, float) and (isinstance(value, bool) or not isinstance(value, Real)):
        return False
    return bool(-MAX_FLOAT <= value <= MAX_FLOAT)


def _refusal(name: str, value: object, limit: str, remedy: str) -> ValueError:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"<{type(value).__name__}>"
    text = text if len(text) <= 80 else f"{text[:80]}..."
    return ValueError(f"{name}={text} must be {limit}; pass {remedy}")
