"""What a request asks of the sampler and when it ends. Torch-free: the scheduler and the simulator carry it too."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

MAX_INT = (1 << 63) - 1
MAX_SEED = (1 << 64) - 1
MAX_FLOAT = 3.4028234e38
"""The largest float32, since samplers compute in float32."""


@dataclass(slots=True, frozen=True, kw_only=True)
class SamplingParams:
    """Sampling and stopping parameters of one request, in the names that vLLM's users know.

    Raises:
        ValueError: at construction, naming the value, its limit and what to pass instead; also for a parameter that
            vLLM has and ServeLab does not serve.
    """

    n: int = 1
    """Answers to the prompt. Each is a request of its own: answer i has the seed `seed + i`."""
    temperature: float = 1.0
    """Logits are divided by it; 0 means greedy."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 and -1 keep all, and are read back as 0."""
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
    """Seed of this request's noise, from 0 to 2^64 - 1; None, and -1, derive one from the engine's seed and the request
    id."""
    max_tokens: int | None = 16
    """Output tokens at most. None: up to the length limit of the engine, which fills the number in, so that policies
    see one."""
    min_tokens: int = 0
    """Nothing ends the request before it has this many output tokens: end tokens, stop tokens and stop strings that
    come earlier stay in the output, as `ignore_eos` leaves them. (vLLM makes them impossible instead.)"""
    stop: tuple[str, ...] = ()
    """End when the output text contains one of these, given as one string or several; the text is cut before it."""
    stop_token_ids: tuple[int, ...] = ()
    """End when one of these is sampled; it stays in the token ids, not in the text."""
    include_stop_str_in_output: bool = False
    """Cut the text after the stop string or stop token, not before it."""
    skip_special_tokens: bool = True
    """Leave special tokens out of the text."""
    bad_words: tuple[str, ...] = ()
    """Words that the output must not contain, each of one token, with or without a space before it."""
    allowed_token_ids: tuple[int, ...] | None = None
    """Only these tokens can be sampled; None allows all. It cannot be combined with penalties."""
    ignore_eos: bool = False
    """Do not end at the model's end-of-sequence tokens."""
    logprobs: int | None = None
    """None returns no log-probabilities. n returns those of the sampled token and of the n most likely tokens; -1 those
    of the whole vocabulary."""
    prompt_logprobs: int | None = None
    """As `logprobs`, for each token of the prompt but the first. Such a request computes its whole prompt: it takes
    nothing from the prefix cache, which holds no logits. Of `n` answers the first one brings them."""

    def __post_init__(self) -> None:
        for name in ("stop", "stop_token_ids", "bad_words"):
            if getattr(self, name) is None:
                self._set(name, ())
        if self.logit_bias is None:
            self._set("logit_bias", {})
        if self.seed == -1 and _is_integer(self.seed):
            self._set("seed", None)
        self._integer("n", 1, "1 for one answer")
        self._number("temperature", 0, None, "0 for greedy")
        if self.top_k == -1 and _is_integer(self.top_k):
            self._set("top_k", 0)
        self._integer("top_k", 0, "0 to keep every token")
        self._number("top_p", 0, 1, "1 to keep every token", above=True)
        self._number("min_p", 0, 1, "0 to keep every token")
        self._number("repetition_penalty", 0, None, "1 for none", above=True)
        self._number("presence_penalty", -2, 2, "0 for none")
        self._number("frequency_penalty", -2, 2, "0 for none")
        self._integer("seed", 0, "None to have one derived", MAX_SEED, optional=True)
        self._integer("max_tokens", 1, "1 or more, or None for as many as the engine allows", optional=True)
        self._integer("min_tokens", 0, "0 to end at any token")
        if self.min_tokens and self.max_tokens is not None and self.min_tokens > self.max_tokens:
            limit = f"at most max_tokens={self.max_tokens}"
            raise _refusal("min_tokens", self.min_tokens, limit, "a lower number, or raise max_tokens")
        self._integer("logprobs", -1, "None for none, or -1 for the whole vocabulary", optional=True)
        self._integer("prompt_logprobs", -1, "None for none, or -1 for the whole vocabulary", optional=True)
        for name, remedy in _FLAGS.items():
            if not isinstance(getattr(self, name), bool):
                raise _refusal(name, getattr(self, name), "True or False", remedy)
        if type(self.logit_bias) is not dict or self.logit_bias:
            self._set("logit_bias", _biases(self.logit_bias))
        if self.stop is not _DEFAULTS["stop"]:
            self._set("stop", _texts("stop", self.stop))
        if self.stop_token_ids is not _DEFAULTS["stop_token_ids"]:
            ids = _items("stop_token_ids", self.stop_token_ids, "a list of token ids")
            self._set("stop_token_ids", tuple(_token_id("stop_token_ids", self.stop_token_ids, one) for one in ids))
        if self.bad_words is not _DEFAULTS["bad_words"]:
            self._set("bad_words", _texts("bad_words", self.bad_words))
        if self.allowed_token_ids is not None:
            self._set("allowed_token_ids", self._allowed(self.allowed_token_ids))

    def _allowed(self, given: Any) -> tuple[int, ...]:
        ids = _items("allowed_token_ids", given, "a list of token ids", "None to allow all")
        if not ids:
            raise _refusal("allowed_token_ids", given, "a list of at least one token id", "None to allow all")
        if self.has_penalties:
            raise _refusal("allowed_token_ids", given, "without penalties", "one of them alone")
        return tuple(dict.fromkeys(_token_id("allowed_token_ids", given, one) for one in ids))

    def of_choice(self, index: int) -> SamplingParams:
        """Those of answer `index` of `n`, as a request of its own."""
        if self.n == 1 and index == 0:
            return self
        return replace(
            self,
            n=1,
            seed=None if self.seed is None else (self.seed + index) & MAX_SEED,
            prompt_logprobs=self.prompt_logprobs if index == 0 else None,
        )

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
        """Whether a penalty is set, so that logits depend on the tokens seen so far."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


_DEFAULTS = {one.name: one.default for one in fields(SamplingParams)}
_FLAGS = {
    "ignore_eos": "False to end at the model's end token",
    "include_stop_str_in_output": "False to cut the text before the stop string",
    "skip_special_tokens": "True to leave special tokens out of the text",
}
NOT_SERVED = {
    "best_of": "answers are not ranked; pass n, logprobs=0 and take the highest cumulative_logprob",
    "use_beam_search": "there is no beam search; pass n for several answers",
    "length_penalty": "there is no beam search; leave it out",
    "early_stopping": "there is no beam search; leave it out",
    **dict.fromkeys(
        ("guided_decoding", "structured_outputs"),
        "there is no grammar; for a choice among single tokens pass allowed_token_ids",
    ),
    "logits_processors": "a request brings no code; register a sampler plugin, or pass logit_bias",
    "truncate_prompt_tokens": "prompts are never cut silently; cut the token ids yourself",
    "detokenize": "text is made where there is a tokenizer; read token_ids and leave it out",
    "spaces_between_special_tokens": "tokenizers put no space there; leave it out",
    "output_kind": "LLM.generate returns whole answers and LLM.stream pieces; leave it out",
    **dict.fromkeys(("extra_args", "logit_processors_args"), "nothing reads it; leave it out"),
    "flat_logprobs": "log-probabilities come as dicts by token; leave it out",
    "skip_reading_prefix_cache": "set engine.prefix_caching=false; a request with prompt_logprobs reads nothing of it",
}
"""vLLM's parameters that are not served, why, and what to do."""
_NEUTRAL = {"best_of": 1, "length_penalty": 1.0, "detokenize": True, "spaces_between_special_tokens": True}
"""The values with which such a parameter asks for nothing: these and None; for all others False and None."""
_fill = SamplingParams.__init__


@functools.wraps(_fill)
def _init(self: SamplingParams, **given: Any) -> None:
    """Takes what vLLM has and does not serve here, too, if its value asks for nothing."""
    if not given.keys() <= _DEFAULTS.keys():
        for name in [name for name in given if name not in _DEFAULTS]:
            value = given.pop(name)
            neutral = _NEUTRAL.get(name, False)
            if name not in NOT_SERVED or not (value is None or (type(value) is type(neutral) and value == neutral)):
                raise _unknown(name)
    _fill(self, **given)


SamplingParams.__init__ = _init  # type: ignore[method-assign]


def _unknown(name: str) -> ValueError:
    if name in NOT_SERVED:
        return ValueError(f"SamplingParams does not serve {name}: {NOT_SERVED[name]}")
    near = difflib.get_close_matches(name, _DEFAULTS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return ValueError(f"SamplingParams has no parameter {name!r}; {hint}It takes {', '.join(_DEFAULTS)}")


def _texts(name: str, given: Any) -> tuple[str, ...]:
    texts = (given,) if isinstance(given, str) else _items(name, given, "a string or a list of strings")
    if not all(isinstance(text, str) and text for text in texts):
        raise _refusal(name, given, "of strings, none of them empty", "() for none")
    return texts


def _biases(given: Any) -> dict[int, float]:
    if not isinstance(given, Mapping):
        raise _refusal("logit_bias", given, "a mapping of token ids to numbers", "{} for none")
    biases = {}
    for token_id, bias in given.items():
        if not _is_number(bias):
            raise _refusal("logit_bias", given, f"of finite numbers, but {bias!r} is not one", "-10000 to ban a token")
        biases[_token_id("logit_bias", given, token_id)] = bias if isinstance(bias, int | float) else float(bias)
    return biases


def _items(name: str, given: Any, limit: str, remedy: str = "() for none") -> tuple[Any, ...]:
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        raise _refusal(name, given, limit, remedy)
    return tuple(given)


def _token_id(name: str, given: object, value: Any) -> int:
    if not _is_integer(value) or not 0 <= value <= MAX_INT:
        raise _refusal(name, given, f"of token ids, but {value!r} is not one", "integers, at least 0")
    return int(value)


def _is_integer(value: object) -> bool:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def _is_number(value: Any) -> bool:
    """Whether `value` is a number that is finite in float32. NaN fails the comparison."""
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
