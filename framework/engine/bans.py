"""`bad_words` and `allowed_token_ids` as a bias of logits and a top-k, which samplers have already."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from framework.interfaces.sampling_params import SamplingParams

_BAN = -10_000.0
"""Added to the logit of a word that is banned, times a temperature above 1"""
_LIFT = 1024.0
"""Added to the logits of tokens that are allowed: more than logits differ, and float32 keeps 4 decimals beside it"""
_MOST = 100.0
"""What the caller's own bias may be beside it"""


def through_bias(params: SamplingParams, tokenizer: Any) -> SamplingParams:
    """`params` without the two.

    The allowed tokens are lifted above all others, and top-k keeps no more than those, so nothing else can be drawn at
    any temperature.

    Raises:
        ValueError: a word of several tokens, or without a tokenizer; a bias beside `allowed_token_ids` that is too
            large; nothing is left to sample.
    """
    bias = dict(params.logit_bias)
    top_k, allowed = params.top_k, params.allowed_token_ids
    banned = {token for word in params.bad_words for token in _tokens_of(word, tokenizer)}
    if allowed is None:
        for token in banned:
            bias[token] = _BAN * max(1.0, params.temperature)
    else:
        if large := [token for token, value in bias.items() if abs(value) > _MOST]:
            raise ValueError(
                f"logit_bias={{{large[0]}: {bias[large[0]]}}} with allowed_token_ids must be in [-{_MOST:g}, "
                f"{_MOST:g}]; leave the token out of allowed_token_ids to ban it"
            )
        kept = [token for token in allowed if token not in banned]
        if not kept:
            raise ValueError("bad_words ban every one of allowed_token_ids; pass a further token there")
        bias = {token: _LIFT + bias.get(token, 0.0) for token in kept}
        top_k = min(top_k or len(kept), len(kept))
    return replace(params, logit_bias=bias, top_k=top_k, bad_words=(), allowed_token_ids=None)


def _tokens_of(word: str, tokenizer: Any) -> set[int]:
    """The tokens of a word alone and after a space."""
    if tokenizer is None:
        raise ValueError(f"bad_words={word!r}, but this model has no tokenizer; pass logit_bias={{token id: -10000}}")
    alone, after_space = (tokenizer.encode(text, add_special_tokens=False) for text in (word, f" {word.lstrip()}"))
    for ids in (alone, after_space):
        if len(ids) != 1 and not (len(alone) == 1 and alone[0] in ids):
            raise ValueError(
                f"bad_words={word!r} is the tokens {ids} of this model; a word of one token can be banned. Pass one of "
                f"them in logit_bias, {{{ids[-1]}: -10000}}, to ban it everywhere"
            )
    return {alone[0], *(after_space if len(after_space) == 1 else ())}
