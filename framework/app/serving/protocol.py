"""Bodies of requests, as OpenAI's API has them, with the sampling parameters that vLLM's users add.

Every field that is not listed here is refused by name. Values are checked by `SamplingParams`, as everywhere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from framework.interfaces.sampling_params import SamplingParams

Number = StrictInt | float


class StreamOptions(BaseModel):
    """What a stream says beside the text."""

    model_config = ConfigDict(extra="forbid")

    include_usage: StrictBool = False
    continuous_usage_stats: StrictBool = False


class Sampling(BaseModel):
    """What both endpoints take."""

    model_config = ConfigDict(extra="forbid")

    model: StrictStr | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: StrictInt = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] | None = None
    seed: StrictInt | None = None
    stop: StrictStr | list[StrictStr] | None = None
    stop_token_ids: list[StrictInt] = Field(default_factory=list)
    ignore_eos: StrictBool = False
    min_tokens: StrictInt = 0
    include_stop_str_in_output: StrictBool = False
    skip_special_tokens: StrictBool = True
    bad_words: list[StrictStr] = Field(default_factory=list)
    allowed_token_ids: list[StrictInt] | None = None
    n: StrictInt = Field(default=1, ge=1, le=128)
    prompt_logprobs: StrictInt | None = Field(default=None, ge=0, le=20)
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    priority: StrictInt = 0
    user: StrictStr = ""
    """Becomes the client of the request, for fair scheduling and per-client metrics."""

    def sampling(
        self, max_tokens: int, logprobs: int | None, index: int, prompt_logprobs: int | None
    ) -> SamplingParams:
        """The parameters of choice `index`. Stop strings stay here, where the text is.

        Raises:
            ValueError: naming the value, the limit and the remedy.
        """
        params = SamplingParams(
            n=self.n,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias or {},
            seed=self.seed,
            stop_token_ids=tuple(self.stop_token_ids),
            ignore_eos=self.ignore_eos,
            min_tokens=self.min_tokens,
            include_stop_str_in_output=self.include_stop_str_in_output,
            skip_special_tokens=self.skip_special_tokens,
            bad_words=tuple(self.bad_words),
            allowed_token_ids=None if self.allowed_token_ids is None else tuple(self.allowed_token_ids),
            max_tokens=max_tokens,
            logprobs=logprobs,
        ).of_choice(index)
        return params if prompt_logprobs is None else replace(params, prompt_logprobs=prompt_logprobs)

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def prompt_only(self) -> bool:
        """Whether the prompt is to be scored and nothing generated."""
        return False


class CompletionBody(Sampling):
    """POST /v1/completions."""

    prompt: StrictStr | list[StrictStr] | list[StrictInt] | list[list[StrictInt]]
    max_tokens: StrictInt = 16
    echo: StrictBool = False
    logprobs: StrictInt | None = Field(default=None, ge=0, le=20)

    @property
    def prompt_only(self) -> bool:
        """Whether the prompt is to be scored and nothing generated."""
        return self.echo and self.max_tokens == 0


class ChatBody(Sampling):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]]
    max_tokens: StrictInt | None = None
    max_completion_tokens: StrictInt | None = None
    logprobs: StrictBool = False
    top_logprobs: StrictInt | None = Field(default=None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none"] = "auto"
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    add_generation_prompt: StrictBool = True


class TokenizeBody(BaseModel):
    """POST /tokenize."""

    model_config = ConfigDict(extra="forbid")

    model: StrictStr | None = None
    prompt: StrictStr | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: StrictBool = True


class DetokenizeBody(BaseModel):
    """POST /detokenize."""

    model_config = ConfigDict(extra="forbid")

    model: StrictStr | None = None
    tokens: list[StrictInt]
