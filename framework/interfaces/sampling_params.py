"""What a request asks of the sampler and when it ends. Torch-free: the scheduler and the simulator carry it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    """Seed of this request's noise; None derives one from the engine's seed and the request id."""
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
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        _check(self.temperature >= 0, "temperature", self.temperature, "at least 0", "0 for greedy")
        _check(self.top_k >= 0, "top_k", self.top_k, "at least 0", "0 to keep every token")
        _check(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]", "1 to keep every token")
        _check(0 <= self.min_p <= 1, "min_p", self.min_p, "in [0, 1]", "0 to keep every token")
        _check(self.repetition_penalty > 0, "repetition_penalty", self.repetition_penalty, "above 0", "1 for none")
        _check(-2 <= self.presence_penalty <= 2, "presence_penalty", self.presence_penalty, "in [-2, 2]", "0 for none")
        _check(
            -2 <= self.frequency_penalty <= 2, "frequency_penalty", self.frequency_penalty, "in [-2, 2]", "0 for none"
        )
        _check(self.max_tokens >= 1, "max_tokens", self.max_tokens, "at least 1", "1 or more")
        _check(self.logprobs is None or self.logprobs >= 0, "logprobs", self.logprobs, "at least 0", "None for none")
        _check(all(self.stop), "stop", self.stop, "without empty strings", "non-empty strings")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether a logit depends on the tokens seen so far."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


def _check(holds: bool, name: str, value: object, limit: str, remedy: str) -> None:
    if not holds:  # NaN fails every comparison, so it lands here too
        raise ValueError(f"{name}={value!r} must be {limit}; pass {remedy}")
