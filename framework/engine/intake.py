"""Turns what a caller passes into a `Request`, or says what is wrong with it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np

from framework.engine.bans import through_bias
from framework.engine.output import TextTracker
from framework.engine.request import Request
from framework.engine.special_stops import SpecialStops
from framework.interfaces.prompt_keys import PromptKeys
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams


@dataclass(slots=True, kw_only=True)
class Intake:
    """The limits that a request is held against.

    `tokenizer` is None for a model without one. Prompts must then be token ids, and stop strings are refused.
    `refuses(params)` is the sampler's `unsupported_reason`. With `simulated_block_size`, the block size of an engine
    without a model, prompts by key are taken too and requests run to their last token: nothing says what they sample.
    """

    vocab_size: int
    max_model_len: int
    seed: int = 0
    eos_token_ids: tuple[int, ...] = ()
    tokenizer: Any = None
    refuses: Any = field(default=lambda params: None)
    simulated_block_size: int | None = None
    objectives: Mapping[str, float] = field(default_factory=dict)
    """Fields of `RequestSpec`, such as `ttft_slo_s`, for requests that do not state them."""

    def build(self, request_id: int, spec: RequestSpec, *, arrival_s: float) -> Request:
        """Check and build.

        Raises:
            ValueError: naming the value, the limit and the remedy.
        """
        keys, params = None, spec.params
        if spec.output_tokens is not None and spec.output_tokens < 1:
            raise ValueError(f"output_tokens={spec.output_tokens} must be at least 1, or None where it is not known")
        if spec.prompt_keys is None:
            token_ids = self._token_ids(spec.prompt, spec.prompt_token_ids)
            num_prompt = len(token_ids)
        else:
            keys = self._keys(spec, spec.prompt_keys)
            token_ids, num_prompt = array("i"), spec.num_prompt_tokens or 0
        self._check_length(num_prompt)
        params = self._resolve(params, num_prompt)
        objectives = self._objectives(spec)
        if objectives or params is not spec.params:
            spec = replace(spec, params=params, **objectives)
        stops = params.stop_token_ids + (() if params.ignore_eos else self.eos_token_ids)
        request = Request(
            id=request_id,
            token_ids=token_ids,
            keys=keys,
            num_prompt=num_prompt,
            max_total_tokens=min(num_prompt + (params.max_tokens or 0), self.max_model_len),
            min_total_tokens=num_prompt + params.min_tokens,
            spec=spec.without_secrets(),
            seed=params.seed if params.seed is not None else mix_seed(self.seed, request_id),
            stop_ids=frozenset(() if self.simulated_block_size is not None else stops),
            arrival_s=arrival_s,
        )
        if (spec.want_text or params.stop) and self.tokenizer is None:
            what = "stop strings were given" if params.stop else "text was asked for"
            raise ValueError(f"{what}, but this model has no tokenizer; set model.tokenizer")
        if spec.want_text or params.stop or (spec.streams and self.tokenizer is not None):
            request.text = TextTracker(
                self.tokenizer.stream_decoder(skip_special_tokens=params.skip_special_tokens),
                params.stop,
                self._special_stops(params.stop) if params.skip_special_tokens else None,
                min_tokens=params.min_tokens,
                include_stop=params.include_stop_str_in_output,
            )
        return request

    def _special_stops(self, stop: tuple[str, ...]) -> SpecialStops | None:
        texts = self.tokenizer.special_texts if stop else {}
        named = tuple(text for text in stop if any(special in text for special in texts.values()))
        if not named:
            return None
        return SpecialStops(self.tokenizer.stream_decoder(skip_special_tokens=False), named, texts)

    def _token_ids(self, prompt: str | None, prompt_token_ids: Sequence[int] | None) -> array[int]:
        if (prompt is None) == (prompt_token_ids is None):
            given = "both" if prompt is not None else "neither"
            raise ValueError(f"a request takes either a text prompt or prompt_token_ids, but {given} was given")
        if prompt is not None:
            if self.tokenizer is None:
                raise ValueError(
                    "a text prompt was given, but this model has no tokenizer; pass prompt_token_ids, or set "
                    "model.tokenizer"
                )
            prompt_token_ids = self.tokenizer.encode(prompt)
        assert prompt_token_ids is not None
        if len(prompt_token_ids) == 0:
            raise ValueError("the prompt is empty; pass at least one token")
        # From a list: anything else with a buffer, such as bytes, would be copied as memory, not as numbers.
        given_ids = prompt_token_ids if isinstance(prompt_token_ids, list) else list(prompt_token_ids)
        try:
            token_ids = array("i", given_ids)
        except TypeError as error:
            bad = next(token for token in given_ids if not hasattr(token, "__index__"))
            raise ValueError(
                f"prompt token id {bad!r} is not an integer; pass ids from 0 to {self.vocab_size - 1}"
            ) from error
        except OverflowError:
            low, high = min(given_ids), max(given_ids)
        else:
            numbers = np.frombuffer(token_ids, dtype=np.int32)  # five times as fast as min and max
            low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high >= self.vocab_size:
            bad = low if low < 0 else high
            raise ValueError(f"prompt token id {bad} is out of range; this model's ids are 0 to {self.vocab_size - 1}")
        return token_ids

    def _keys(self, spec: RequestSpec, keys: Sequence[int]) -> PromptKeys:
        if spec.prompt is not None or spec.prompt_token_ids is not None:
            raise ValueError("a request takes either prompt_keys or a prompt, but both were given")
        if self.simulated_block_size is None:
            raise ValueError(
                "prompt_keys were given, but a model needs tokens: use executor=simulated, or pass prompt_token_ids"
            )
        if spec.num_prompt_tokens is None or spec.num_prompt_tokens < 1:
            raise ValueError(f"num_prompt_tokens={spec.num_prompt_tokens} of a prompt by keys must be at least 1")
        size = self.simulated_block_size
        return PromptKeys.of(
            keys, key_tokens=spec.key_tokens if keys else size, block_size=size, num_prompt=spec.num_prompt_tokens
        )

    def _objectives(self, spec: RequestSpec) -> dict[str, Any]:
        """Those that the request takes over, as it has none of its own."""
        for name in ("ttft_slo_s", "tpot_slo_s", "e2e_slo_s"):
            limit_s = getattr(spec, name)
            if limit_s is not None and not limit_s >= 0:
                raise ValueError(f"{name}={limit_s} must be at least 0 seconds, or None for no objective")
        if not 0 <= spec.weight < inf:
            raise ValueError(f"weight={spec.weight} must be a finite number, at least 0")
        return {name: limit_s for name, limit_s in self.objectives.items() if getattr(spec, name) is None}

    def _check_length(self, num_prompt: int) -> None:
        if num_prompt >= self.max_model_len:
            raise ValueError(
                f"the prompt has {num_prompt} tokens, but with room for one output token at most "
                f"{self.max_model_len - 1} fit (max_model_len={self.max_model_len}); shorten it, or raise "
                f"engine.max_model_len or engine.num_blocks"
            )

    def _resolve(self, params: SamplingParams, num_prompt: int) -> SamplingParams:
        """What policies and samplers see of them.

        Raises:
            ValueError: naming the value, the limit and the remedy.
        """
        if params.n != 1:
            raise ValueError(
                f"n={params.n}: a request to the engine is one answer; send {params.n} requests, with "
                f"params.of_choice(0) to params.of_choice({params.n - 1}), as LLM.generate does"
            )
        named = {"stop_token_ids": params.stop_token_ids, "logit_bias": tuple(params.logit_bias)}
        for name, ids in (named | {"allowed_token_ids": params.allowed_token_ids or ()}).items():
            bad = next((token for token in ids if not 0 <= token < self.vocab_size), None)
            if bad is not None:
                raise ValueError(f"{name} names token id {bad}; this model's ids are 0 to {self.vocab_size - 1}")
        if params.prompt_logprobs is not None and self.simulated_block_size is not None:
            raise ValueError(
                f"prompt_logprobs={params.prompt_logprobs}: a simulated engine computes no logits; leave it out, or "
                f"choose another executor than executor=simulated"
            )
        resolved = params
        if params.max_tokens is None:
            resolved = replace(params, max_tokens=self.max_model_len - num_prompt)
        if params.logprobs == -1:
            resolved = replace(resolved, logprobs=self.vocab_size)
        if params.prompt_logprobs == -1:
            resolved = replace(resolved, prompt_logprobs=self.vocab_size)
        if params.bad_words or params.allowed_token_ids is not None:
            resolved = through_bias(resolved, self.tokenizer)
        reason = self.refuses(resolved)
        if reason is not None:
            by = [name for name in ("allowed_token_ids", "bad_words") if getattr(params, name)]
            raise ValueError(f"{' and '.join(by)} become logit_bias: {reason}" if by else reason)
        return resolved


def mix_seed(seed: int, request_id: int) -> int:
    """A request's own non-negative 63-bit seed (the SplitMix64 finaliser over both numbers)."""
    mask = (1 << 64) - 1
    x = (seed * 0x9E3779B97F4A7C15 + request_id + 0x632BE59BD9B4E019) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) >> 1
