"""What a workload is: requests with arrival times, drawn before the run starts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from framework.interfaces.sampling_params import SamplingParams


@dataclass(slots=True, kw_only=True)
class TimedRequest:
    """One request and when it arrives. Exactly one of `prompt_token_ids`, `prompt` and `messages` is set."""

    arrival_s: float = 0.0
    """Seconds since start; when a client would have sent it, however busy the engine is."""
    prompt_token_ids: list[int] | None = None
    prompt: str | None = None
    messages: list[dict[str, str]] | None = None
    """A conversation for the model's chat template: `[{"role": "user", "content": "..."}]`."""
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
    streams: bool = False
    """Whether its text is wanted after every step, not only at the end; set by `prepare`."""
    error: str = ""
    """Why it is rejected without asking the engine; the other requests run."""


@dataclass(slots=True, frozen=True, kw_only=True)
class WorkloadContext:
    """What a workload may know of the model and the run."""

    tokenizer: Any
    """A `framework.loading.tokenizer.Tokenizer`; None for a model without one."""
    vocab_size: int
    max_model_len: int
    seed: int
    """The run's seed, used by workloads whose own `seed` is None."""
    eos_token_ids: tuple[int, ...] = ()


class Workload(ABC):
    """Draws the requests of one run. Registers with `@WORKLOADS.register("name")`, keyword-only parameters."""

    has_text: ClassVar[bool] = False
    """Whether prompts are text, so that outputs are recorded as text too."""
    prints_answers: ClassVar[bool] = False
    """Whether answers are printed as they stream, in place of a progress bar."""

    @abstractmethod
    def requests(self, context: WorkloadContext) -> Iterator[TimedRequest]:
        """The requests in arrival order; the same ones for the same parameters and seed.

        Raises:
            ValueError: naming the parameter, or the file and line, that cannot be used.
        """
