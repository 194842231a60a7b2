"""The Python API, in the shape that users of vLLM know.

with LLM("smollm2", scheduler="prefill_first", max_num_seqs=8) as llm:
    for output in llm.generate(["Once upon a time"], SamplingParams(max_tokens=32)):
        print(output.outputs[0].text)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from framework.app.build import build
from framework.config.api import api_overrides
from framework.config.compose import compose
from framework.engine.output import RequestOutput
from framework.execution.built import BuiltEngine
from framework.interfaces.eviction import NeedsFuture
from framework.interfaces.executor import TokenLogprobs
from framework.interfaces.records import RequestRecord
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.registry import EVICTIONS

Prompt = str | Sequence[int]
Messages = Sequence[Mapping[str, str]]


@dataclass(slots=True)
class Completion:
    """What a request produced."""

    text: str
    token_ids: list[int]
    finish_reason: str
    """stop, length or abort."""
    logprobs: list[TokenLogprobs] | None = None


@dataclass(slots=True)
class GenerationOutput:
    """A prompt and what came of it. `error` is set, and `outputs` empty, if the request was refused or has failed."""

    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[Completion] = field(default_factory=list)
    record: RequestRecord | None = None
    """Its times and counts."""
    error: Exception | None = None


@dataclass(slots=True)
class StreamChunk:
    """A piece of a streamed answer; the last one has a `finish_reason`."""

    text: str
    token_ids: list[int]
    finish_reason: str | None = None


class LLM:
    """An engine with a tokenizer around it. Not thread-safe; close it, or use it as a context manager.

    Args:
        model: a preset (`smollm2`), a Hugging Face folder or hub id, or a `.gguf` file.
        overrides: plugin choices (`scheduler="prefill_first"`, or `scheduler={"name": ..., "max_chunk_tokens": 256}`),
            engine and executor keys by their own names (`max_num_seqs=8`, `dtype="bfloat16"`), any other group as a
            mapping (`record={"outputs": True}`), and `overrides=[...]` with Hydra overrides as on the command line.

    Raises:
        ValueError: unknown key, choice, type or limit; a missing or broken model file.
    """

    def __init__(self, model: str = "smollm2", **overrides: Any) -> None:
        self.cfg = compose(api_overrides(model, overrides))
        if issubclass(EVICTIONS.get(self.cfg.eviction.name), NeedsFuture):
            raise ValueError(
                f"eviction={self.cfg.eviction.name} needs to know all requests beforehand, as run.py does "
                f"with a workload; choose another policy, such as eviction='lru'"
            )
        self._built: BuiltEngine = build(self.cfg)
        self.engine, self.tokenizer = self._built.engine, self._built.tokenizer
        self._news: dict[int, list[RequestOutput]] = {}
        self._closed = False

    @property
    def effective(self) -> dict[str, object]:
        """What was chosen where the configuration said `auto`."""
        return self._built.effective

    def generate(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[GenerationOutput]:
        """Complete every prompt (text or token ids) and return the outputs in their order.

        A request that is refused, or fails (`NotFiniteError`), comes back with `error` set, and the others finish.

        Raises:
            ValueError: if every request was refused or failed (the first reason), or `params` does not match `prompts`.
        """
        batch: list[Any] = [prompts] if _is_one(prompts) else list(prompts)
        return self._run([self._encode(prompt) for prompt in batch], _params_for(batch, params))

    def chat(
        self,
        conversations: Messages | Sequence[Messages],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[GenerationOutput]:
        """Answer one conversation (a list of `{"role": ..., "content": ...}`) or several.

        Raises:
            ValueError: as `generate`, and if the model has no chat template.
        """
        is_one = len(conversations) > 0 and isinstance(conversations[0], Mapping)
        batch: list[Any] = [conversations] if is_one else list(conversations)
        encoded: list[tuple[str | None, list[int]]] = [
            (None, self._require_tokenizer().apply_chat_template(messages)) for messages in batch
        ]
        return self._run(encoded, _params_for(batch, params))

    def stream(self, prompt: Prompt | Messages, params: SamplingParams | None = None) -> Iterator[StreamChunk]:
        """Yield the answer to a prompt or a conversation piece by piece. Closing the iterator aborts the request.

        Raises:
            ValueError: if the request is refused, or has failed (`NotFiniteError`).
        """
        if not isinstance(prompt, str) and prompt and isinstance(prompt[0], Mapping):
            ids = self._require_tokenizer().apply_chat_template(prompt)
        else:
            _, ids = self._encode(prompt)  # type: ignore[arg-type]
        request_id = self._add(ids, params or SamplingParams())
        try:
            while True:
                while not self._news[request_id]:
                    self._step()
                output = self._news[request_id].pop(0)
                if output.error is not None:
                    raise output.error
                yield StreamChunk(output.text_delta, output.new_token_ids, output.finish_reason)
                if output.finished:
                    return
        finally:
            self.engine.abort(request_id)  # nothing to do if it has ended
            del self._news[request_id]

    def close(self) -> None:
        """Give back threads and memory. Idempotent."""
        self._closed = True
        self.engine.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, encoded: list[tuple[str | None, list[int]]], params: list[SamplingParams]) -> list[GenerationOutput]:
        outputs = [GenerationOutput(text, ids) for text, ids in encoded]
        pending: dict[int, GenerationOutput] = {}
        try:
            for output, wanted in zip(outputs, params, strict=True):
                try:
                    pending[self._add(output.prompt_token_ids, wanted)] = output
                except ValueError as refusal:
                    output.error = refusal
            if outputs and not pending:
                raise next(output.error for output in outputs if output.error)
            while any(not (self._news[i] and self._news[i][-1].finished) for i in pending):
                self._step()
            for request_id, output in pending.items():
                _fill(output, self._news[request_id][-1])
            if outputs and all(output.error for output in outputs):
                raise next(output.error for output in outputs if output.error)
        finally:
            for request_id in pending:
                self.engine.abort(request_id)
                del self._news[request_id]
        return outputs

    def _add(self, ids: list[int], params: SamplingParams) -> int:
        if self._closed:
            raise ValueError("this LLM was closed; build another one, or close it later")
        request_id = self.engine.add_request(
            RequestSpec(prompt_token_ids=ids, params=params, streams=self.tokenizer is not None)
        )
        self._news[request_id] = []
        return request_id

    def _step(self) -> None:
        for output in self.engine.step():
            self._news[output.request_id].append(output)

    def _encode(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        if isinstance(prompt, str):
            return prompt, self._require_tokenizer().encode(prompt)
        return None, list(prompt)

    def _require_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise ValueError(f"model {self.cfg.model.name} has no tokenizer; pass token ids, or set model.tokenizer")
        return self.tokenizer


def _is_one(prompts: Prompt | Sequence[Prompt]) -> bool:
    return isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))


def _params_for(
    batch: Sequence[object], params: SamplingParams | Sequence[SamplingParams] | None
) -> list[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * len(batch)
    if len(params) != len(batch):
        raise ValueError(f"{len(params)} SamplingParams for {len(batch)} prompts; pass one, or one a prompt")
    return list(params)


def _fill(output: GenerationOutput, last: RequestOutput) -> None:
    assert last.finish_reason is not None
    output.record = last.record
    if last.error is not None:
        output.error = last.error
        return
    output.outputs = [Completion(last.text, last.token_ids, last.finish_reason, last.logprobs)]
