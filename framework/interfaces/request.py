"""What is asked of an engine: one prompt, how to sample, and on whose behalf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from framework.interfaces.sampling_params import SamplingParams


@dataclass(slots=True, frozen=True, kw_only=True)
class RequestSpec:
    """One request as its sender describes it.

    Exactly one of `prompt_token_ids`, `prompt` and `prompt_keys` is set. A field that is added here reaches the
    scheduler as `RequestView.spec` and every workload as a field of `TimedRequest`.
    """

    prompt_token_ids: Sequence[int] | None = None
    prompt: str | None = None
    """Text, which the engine tokenises."""
    prompt_keys: Sequence[int] | None = None
    """A prompt of `num_prompt_tokens` known only by what it shares: key i stands for its tokens from i * `key_tokens`
    on, equal keys for equal tokens, no keys for a prompt that shares nothing. Simulated executors take it as it is."""
    num_prompt_tokens: int | None = None
    key_tokens: int = 0
    params: SamplingParams = field(default_factory=SamplingParams)
    arrival_s: float | None = None
    """Seconds since start; when a client would have sent it, however busy the engine is. None: now."""
    priority: int = 0
    """Lower runs earlier, as in vLLM."""
    client: str = ""
    """Whom to account the service to; empty when the workload names no client."""
    category: str = ""
    """What kind of request it is, such as "chat" or "api", for policies that tell kinds apart."""
    deadline_s: float | None = None
    """When its first token is due, seconds since start."""
    want_text: bool = False
    """Whether its last output brings the text, and not only the token ids."""
    streams: bool = False
    """Whether its tokens, and its text if there is a tokenizer, are wanted after every step and not only at the end."""
