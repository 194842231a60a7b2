"""Requests from a file, one JSON object per line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest, Workload, WorkloadContext
from framework.registry import WORKLOADS
from framework.workloads.jsonl_line import request_from_line
from framework.workloads.stated_limit import check_max_concurrency
from framework.workloads.text_file import open_text


@WORKLOADS.register("jsonl")
class Jsonl(Workload):
    """Prompts, conversations or token ids from a JSON Lines file, with optional arrival times and parameters.

    A line is an object with one of `prompt` (str), `messages` (list of {role, content}) and `prompt_token_ids` (list of
    int), and any of `arrival_s`, `priority`, `client`, `category`, `session`, `deadline_s`, `ttft_slo_s`, `tpot_slo_s`,
    `e2e_slo_s`, `weight`, `output_tokens` (the true length, which policies do not see) and the sampling parameters
    (`max_tokens`, `temperature`, `top_p`, ...). Lines are put in arrival order; those without `arrival_s` arrive at 0.
    """

    has_text = True

    def __init__(
        self,
        *,
        path: str,
        num_requests: int | None = None,
        max_concurrency: int | None = None,
        max_tokens: int = 64,
        temperature: float = 0.0,
        ignore_eos: bool = False,
    ) -> None:
        """
        Args:
            path: the file; one whose name ends in .gz, .zst or .bz2 is unpacked.
            num_requests: the largest number of lines to read; None for all.
            max_concurrency: requests in the engine at once; a further one is sent when one of them has ended, and its
                times count from there (a closed load). None sends each request when it arrives.
            max_tokens: the value for lines that do not give one.
            temperature: the value for lines that do not give one; 0 for greedy.
            ignore_eos: the value for lines that do not give one.
        """
        if not path:
            raise ValueError("workload.path='' must name a JSON Lines file; pass workload.path=FILE")
        if num_requests is not None and num_requests < 1:
            raise ValueError(f"workload.num_requests={num_requests} must be at least 1; pass null for the whole file")
        check_max_concurrency(max_concurrency)
        self.path = Path(path).expanduser()
        self.num_requests = num_requests
        self.defaults: dict[str, object] = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "ignore_eos": ignore_eos,
        }
        SamplingParams(max_tokens=max_tokens, temperature=temperature)  # raises here, once, not for every line

    def requests(self, context: WorkloadContext) -> Iterator[TimedRequest]:
        with open_text(self.path) as file:
            text = file.read()
        # Not splitlines(): JSON strings may hold U+2028 and the like, which end a line only for str.splitlines.
        lines = ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
        parsed = [
            request_from_line(line, f"{self.path}:{number}", self.defaults)
            for number, line in itertools.islice(lines, self.num_requests)
        ]
        if not parsed:
            raise ValueError(f"workload.path={self.path} holds 0 requests; at least 1 line is needed")
        yield from sorted(parsed, key=lambda request: request.arrival_s)
