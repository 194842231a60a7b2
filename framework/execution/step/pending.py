"""A launched step, and how its tokens come back without stopping the device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from framework.interfaces.errors import NotFiniteError
from framework.interfaces.executor import StepResult, TokenLogprobs
from framework.interfaces.sampler import NOT_FINITE
from framework.interfaces.step_runner import StepLogprobs, StepPromptLogprobs


class Readback:
    """Pinned memory for the tokens of one step. On a CPU it is the tokens themselves."""

    def __init__(self, device: torch.device, max_rows: int) -> None:
        self._cuda = device.type == "cuda"
        self._tokens: Tensor | None = None
        self._started_s = 0.0
        if self._cuda:
            self._pinned = torch.empty(max_rows, dtype=torch.int64, pin_memory=True)
            self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def begin(self) -> None:
        """Note that the first kernel of the step is launched after this."""
        self._started_s, self._tokens = time.perf_counter(), None
        if self._cuda:
            self._start.record()

    def end(self, tokens_P: Tensor | None) -> None:
        """Note that the last kernel of the step is launched. `tokens_P` int64 are the sampled tokens."""
        if not self._cuda:
            self._tokens = tokens_P
            return
        if tokens_P is not None:
            self._tokens = self._pinned[: len(tokens_P)]
            self._tokens.copy_(tokens_P, non_blocking=True)
        self._end.record()

    def done(self) -> bool:
        """Whether `wait` would return at once."""
        return not self._cuda or self._end.query()

    def wait(self) -> tuple[list[int], float]:
        """The tokens, and the seconds that the device spent on the step."""
        if self._cuda:
            self._end.synchronize()
            run_s = self._start.elapsed_time(self._end) / 1e3
        else:
            run_s = time.perf_counter() - self._started_s
        return [] if self._tokens is None else self._tokens.tolist(), run_s


class PendingStep:
    """A launched step. `result` waits for this step and no other."""

    def __init__(
        self,
        step: int,
        readback: Readback,
        *,
        check: Callable[[list[int]], None],
        release: Callable[[Readback], None],
        dtype: str,
        logprobs: StepLogprobs | None = None,
        prompt_logprobs: StepPromptLogprobs | None = None,
        graph_key: str = "eager",
        num_padding_tokens: int = 0,
    ) -> None:
        self._step, self._readback, self._check, self._release = step, readback, check, release
        self._dtype, self._prompt_logprobs = dtype, prompt_logprobs
        self._logprobs, self._graph_key, self._num_padding_tokens = logprobs, graph_key, num_padding_tokens

    def done(self) -> bool:
        """Whether the step has ended."""
        return self._readback.done()

    def wait(self) -> None:
        """Wait without reading the tokens. A rank whose tokens are not needed calls this in place of `result`."""
        self._readback.wait()
        self._release(self._readback)

    def result(self) -> StepResult:
        """Call once.

        Raises:
            PluginError: the sampler returned a token outside the vocabulary.
        """
        token_ids, run_s = self._readback.wait()
        self._release(self._readback)
        if token_ids:
            self._check(token_ids)
        failed: dict[int, Exception] | None = None
        if NOT_FINITE in token_ids:
            error = NotFiniteError(self._step, self._dtype)
            failed = {index: error for index, token in enumerate(token_ids) if token == NOT_FINITE}
        logprobs: list[TokenLogprobs | None] | None = self._logprobs.to_host() if self._logprobs else None
        return StepResult(
            step=self._step,
            token_ids=token_ids,
            logprobs=logprobs,
            failed=failed,
            prompt_logprobs=self._prompt_logprobs.to_host() if self._prompt_logprobs else None,
            graph_key=self._graph_key,
            num_padding_tokens=self._num_padding_tokens,
            run_s=run_s,
        )
