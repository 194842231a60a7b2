"""What a workload is: requests with arrival times, drawn before the run starts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from framework.interfaces.sampling_params import SamplingParams


@dataclass(slots=True, kw_only=True)
class TimedRequest:
    """One request and when it arrives.

    Exactly one of `prompt_token_ids`, `prompt`, `messages` and `prompt_keys` is set.
    """

    arrival_s: float = 0.0
    """Seconds since start; when a client would have sent it, however busy the engine is."""
    after: int | None = None
    """Place in the workload of the request that it follows: it arrives `delay_s` after that one has ended, and its
    prompt, given as token ids, continues that one's prompt and output. `arrival_s` is not used."""
    delay_s: float = 0.0
    prompt_token_ids: Sequence[int] | None = None
    prompt: str | None = None
    messages: list[dict[str, str]] | None = None
    """A conversation for the model's chat template: `[{"role": "user", "content": "..."}]`."""
    prompt_keys: Sequence[int] | None = None
    """A prompt of `num_prompt_tokens` known only by what it shares: key i stands for its tokens from i * `key_tokens`
    on, equal keys for equal tokens, no keys for a prompt that shares nothing. For simulated executors; `prepare` draws
    ids for the others."""
    num_prompt_tokens: int | None = None
    key_tokens: int = 0
    params: SamplingParams = field(default_factory=SamplingParams)
    priority: int = 0
    """Lower runs earlier."""
    client: str = ""
    category: str = ""
    """What kind of request it is, such as "chat" or "api", for policies that tell kinds apart."""
    deadline_s: float | None = None
    """When its first token is due, seconds since start."""
    label: str = ""
    """The prompt as a person wrote it, for printed answers and `outputs.jsonl`."""
    origin: str = ""
    """Where it was read ("trace.jsonl:17"), put in front of the reason if it is refused."""
    streams: bool = False
    """Whether its text is wanted after every step, not only at the end; set by `prepare`."""
    error: str = ""
    """Why it is rejected without asking the engine; the other requests run."""


@dataclass(slots=True, frozen=True, kw_only=True)
class WorkloadContext:
    """What a workload may know of the model and the run."""

    tokenizer: Any
    """A `framework.models.loading.tokenizer.Tokenizer`; None for a model without one."""
    vocab_size: int
    max_model_len: int
    seed: int
    """The run's seed, used by workloads whose own `seed` is None."""
    eos_token_ids: tuple[int, ...] = ()
    needs_token_ids: bool = True
    """Whether the executor computes on tokens; one that simulates takes prompts by key."""


class Workload(ABC):
    """Draws the requests of one run. Registers with `@WORKLOADS.register("name")`, keyword-only parameters."""

    has_text: ClassVar[bool] = False
    """Whether prompts are text, so that outputs are recorded as text too."""
    prints_answers: ClassVar[bool] = False
    """Whether answers are printed as they stream, in place of a progress bar."""
    seed: int | None = None
    """Of what it draws; None takes the run's seed."""
    effective: Mapping[str, object] = MappingProxyType({})
    """What the drawn requests were made of that the configuration does not say, such as lines of a trace that were
    skipped; set by `requests`, for the record."""

    def seed_for(self, context: WorkloadContext) -> int:
        return context.seed if self.seed is None else self.seed

    @abstractmethod
    def requests(self, context: WorkloadContext) -> Iterator[TimedRequest]:
        """The requests in arrival order; the same ones for the same parameters and seed.

        Raises:
            ValueError: naming the parameter, or the file and line, that cannot be used.
        """
