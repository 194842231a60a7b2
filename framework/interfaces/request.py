"""A request to an engine: one prompt, how to sample, and the client that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from framework.interfaces.sampling_params import SamplingParams


@dataclass(slots=True, frozen=True, kw_only=True)
class RequestSpec:
    """One request as its sender describes it, and how long its answer will be, if a workload knows that.

    Exactly one of `prompt_token_ids`, `prompt` and `prompt_keys` is set. A field that is added here becomes a field of
    `TimedRequest`, for every workload, and of the spec that an engine keeps with the request.
    """

    prompt_token_ids: Sequence[int] | None = None
    prompt: str | None = None
    """Text, which the engine tokenises."""
    prompt_keys: Sequence[int] | None = None
    """A prompt of `num_prompt_tokens` tokens that is known only by what it shares. Key i stands for the tokens from
    i * `key_tokens` on. Equal keys stand for equal tokens, and a prompt without keys shares nothing. Simulated
    executors take keys as they are."""
    num_prompt_tokens: int | None = None
    key_tokens: int = 0
    params: SamplingParams = field(default_factory=SamplingParams)
    arrival_s: float | None = None
    """When a client would have sent the request, however busy the engine is, in seconds since start. None is now."""
    priority: int = 0
    """Lower runs earlier, as in vLLM."""
    client: str = ""
    """The client that the service is charged to; empty if the workload names no client."""
    category: str = ""
    """The kind of request, such as "chat" or "api", for policies that tell kinds apart."""
    session: str = ""
    """The conversation or task that it is a part of; empty if the workload has none."""
    deadline_s: float | None = None
    """When the first token is due, in seconds since start."""
    ttft_slo_s: float | None = None
    """The longest time to first token that its sender accepts, from its arrival. Where a request states no objective of
    a kind, it has that of the configuration (`slo.ttft_s`, `slo.tpot_s`, `slo.e2e_s`)."""
    tpot_slo_s: float | None = None
    """The longest mean time per output token after the first."""
    e2e_slo_s: float | None = None
    """The longest time from its arrival to its end."""
    weight: float = 1.0
    """What it is worth to meet its objectives, relative to other requests; at least 0."""
    want_text: bool = False
    """Whether the last output brings the text, and not only the token ids."""
    streams: bool = False
    """Whether its tokens, and its text if there is a tokenizer, are wanted after every step and not only at the end."""
    output_tokens: int | None = None
    """How many tokens it will produce, unless `params` end it before: the workload's secret. The engine takes it off
    the spec that it keeps, so that no policy sees it; `params.max_tokens` is what the sender states. None: not known,
    it runs until `params` end it."""

    def without_secrets(self) -> RequestSpec:
        """What the sender states and no more: neither the true length nor what a workload adds for itself."""
        if self.output_tokens is None and type(self) is RequestSpec:
            return self
        return RequestSpec(**{name: getattr(self, name) for name in _STATED})


_STATED = tuple(one.name for one in fields(RequestSpec) if one.name != "output_tokens")
