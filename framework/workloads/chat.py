"""The default workload: a handful of real questions, answered on screen."""

from __future__ import annotations

from collections.abc import Iterator

from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest, Workload, WorkloadContext
from framework.registry import WORKLOADS

PROMPTS = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about a river.",
    "Give me three tips for learning a new language.",
    "What does a compiler do?",
    "Name the planets of the solar system.",
)


@WORKLOADS.register("chat")
class Chat(Workload):
    """Real prompts through the model's chat template, all at once; the answers are printed as they stream."""

    has_text = True
    prints_answers = True

    def __init__(
        self,
        *,
        prompts: list[str] | None = None,
        system: str | None = None,
        num_requests: int | None = None,
        max_tokens: int = 64,
        temperature: float = 0.0,
    ) -> None:
        """
        Args:
            prompts: user messages, one per request; None for six built-in questions.
            system: system message put in front of each; None for the template's own.
            num_requests: how many to ask, starting over when there are fewer prompts; None for each prompt once.
            max_tokens: the largest number of output tokens.
            temperature: 0 for greedy.
        """
        if prompts is not None and not prompts:
            raise ValueError("workload.prompts=[] must hold at least 1 prompt; pass null for the built-in ones")
        if num_requests is not None and num_requests < 1:
            raise ValueError(f"workload.num_requests={num_requests} must be at least 1; null asks every prompt once")
        self.prompts = list(prompts) if prompts is not None else list(PROMPTS)
        self.system = system
        self.num_requests = len(self.prompts) if num_requests is None else num_requests
        self.params = SamplingParams(temperature=temperature, max_tokens=max_tokens)

    def requests(self, context: WorkloadContext) -> Iterator[TimedRequest]:
        for index in range(self.num_requests):
            prompt = self.prompts[index % len(self.prompts)]
            messages = [{"role": "system", "content": self.system}] if self.system is not None else []
            messages.append({"role": "user", "content": prompt})
            yield TimedRequest(messages=messages, params=self.params, label=prompt)
