"""What a workload is: requests with arrival times, drawn before the run starts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from framework.interfaces.request import RequestSpec


@dataclass(slots=True, frozen=True, kw_only=True)
class TimedRequest(RequestSpec):
    """One request of a workload: what the engine will be asked, when, and what comes before it.

    Exactly one of `prompt_token_ids`, `prompt`, `messages` and `prompt_keys` is set. `prepare` replaces text and
    messages by token ids, and keys too unless the executor takes keys.
    """

    arrival_s: float = 0.0
    after: int | None = None
    """The place in the workload of the request that this one follows. This one arrives `delay_s` after the other has
    ended. Its prompt, given as token ids, continues the other's prompt and output. `arrival_s` is not used."""
    delay_s: float = 0.0
    messages: list[dict[str, str]] | None = None
    """A conversation for the model's chat template: `[{"role": "user", "content": "..."}]`."""
    label: str = ""
    """The prompt as a person wrote it, for printed answers and `outputs.jsonl`."""
    origin: str = ""
    """Where the request was read ("trace.jsonl:17"). If it is refused, this is put in front of the reason."""
    error: str = ""
    """Why the request is rejected without asking the engine. The other requests run."""


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
    """Whether the executor needs token ids. A simulated executor takes prompts by key."""


class Workload(ABC):
    """Draws the requests of one run. Workloads register with `@WORKLOADS.register("name")` and take keyword-only,
    annotated parameters."""

    has_text: ClassVar[bool] = False
    """Whether prompts are text, so that outputs are recorded as text too."""
    prints_answers: ClassVar[bool] = False
    """Whether answers are printed as they stream, in place of a progress bar."""
    is_live: ClassVar[bool] = False
    """Whether the requests come over HTTP while the run lasts."""
    seed: int | None = None
    """The seed of what is drawn. None takes the run's seed."""
    effective: Mapping[str, object] = MappingProxyType({})
    """What the record should say about the drawn requests that the configuration does not say, such as lines of a trace
    that were skipped. `requests` sets it."""
    left_out: str = ""
    """How much of the source could not be used, and why, in one line. `requests` sets it. It becomes the reason of a
    completed record and is printed as a warning."""

    def seed_for(self, context: WorkloadContext) -> int:
        return context.seed if self.seed is None else self.seed

    @abstractmethod
    def requests(self, context: WorkloadContext) -> Iterator[TimedRequest]:
        """The requests in order of arrival. The same parameters and seed give the same requests.

        Raises:
            ValueError: a parameter, or a line of a file, cannot be used. The message names it.
        """
