"""The benchmark of nano-vLLM's README, token for token."""

from __future__ import annotations

import random
from collections.abc import Iterator

from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest, Workload, WorkloadContext
from framework.registry import WORKLOADS
from framework.workloads.stated_limit import check_max_tokens, stated_limit

NUM_REQUESTS = 256
MAX_TOKEN_ID = 10_000
MIN_LEN, MAX_LEN = 100, 1024


@WORKLOADS.register("nano_bench")
class NanoBench(Workload):
    """nano-vLLM's benchmark: 256 random prompts and outputs of 100 to 1,024 tokens each, 133,966 output tokens in all.

    Drawn with Python's `random` seeded 0 in the order of its `bench.py`: every prompt (its length, then its tokens),
    then every output length. Another `seed` keeps all lengths and redraws the tokens, so that repeats do the same work
    on fresh prompts. Token ids are taken modulo the vocabulary size, which changes nothing from 10,001 entries on.
    """

    def __init__(
        self,
        *,
        num_requests: int = NUM_REQUESTS,
        temperature: float = 0.6,
        max_tokens: int | None = None,
        seed: int | None = None,
    ) -> None:
        """
        Args:
            num_requests: the first this many of the 256.
            temperature: 0 for greedy.
            max_tokens: what every request states as its limit; None for the model's.
            seed: 0 for the original token ids; None takes the run's seed.
        """
        if not 1 <= num_requests <= NUM_REQUESTS:
            raise ValueError(
                f"workload.num_requests={num_requests} must be in 1..{NUM_REQUESTS} for nano_bench; "
                "use workload=synthetic for more"
            )
        check_max_tokens(max_tokens)
        self.num_requests = num_requests
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.seed = seed
        SamplingParams(temperature=temperature)  # a bad temperature raises here, before a model is loaded

    def requests(self, context: WorkloadContext) -> Iterator[TimedRequest]:
        rng = random.Random(0)
        prompts = [
            [rng.randint(0, MAX_TOKEN_ID) for _ in range(rng.randint(MIN_LEN, MAX_LEN))] for _ in range(NUM_REQUESTS)
        ]
        output_lens = [rng.randint(MIN_LEN, MAX_LEN) for _ in range(NUM_REQUESTS)]
        seed = self.seed_for(context)
        if seed != 0:
            salted = random.Random(seed)
            prompts = [[salted.randint(0, MAX_TOKEN_ID) for _ in prompt] for prompt in prompts]
        params = SamplingParams(
            temperature=self.temperature, max_tokens=stated_limit(self.max_tokens, context), ignore_eos=True
        )
        for prompt, output_len in zip(prompts[: self.num_requests], output_lens, strict=False):
            yield TimedRequest(
                prompt_token_ids=[token_id % context.vocab_size for token_id in prompt],
                params=params,
                output_tokens=output_len,
            )
