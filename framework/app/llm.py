"""The Python API, in the shape that users of vLLM know.

with LLM("smollm2", scheduler="prefill_first", max_num_seqs=8) as llm:
    for output in llm.generate(["Once upon a time"], SamplingParams(max_tokens=32)):
        print(output.outputs[0].text)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from framework.app.build import build
from framework.app.shared_engine import SharedEngine
from framework.config.api import api_overrides
from framework.config.compose import compose
from framework.engine.fleet import Fleet
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
    """A prompt and what came of it. `error` is set, and `outputs` empty, if the request was refused or failed."""

    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[Completion] = field(default_factory=list)
    record: RequestRecord | None = None
    """Its times and counts."""
    error: Exception | None = None
    """A `ValueError` for a request that was refused; else what a step raised that it was in."""


@dataclass(slots=True)
class StreamChunk:
    """A piece of a streamed answer; the last one has a `finish_reason`."""

    text: str
    token_ids: list[int]
    finish_reason: str | None = None


class LLM:
    """An engine with a tokenizer around it. Close it, or use it as a context manager.

    Several threads may call it at once, and several streams may be open: all their requests run together, with the same
    tokens as alone. An interrupt (Ctrl-C) ends the call that it strikes; open streams go on, or raise if it struck
    while a token was on its way to them. A forked process cannot use the `LLM` of its parent.

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
        if isinstance(self._built.engine, Fleet):
            self._built.engine.close()
            raise ValueError(f"executor.replicas={self.cfg.executor.replicas}: an LLM is one engine; set it to 1")
        self.engine, self.tokenizer = self._built.engine, self._built.tokenizer
        self._shared = SharedEngine(self.engine)

    @property
    def effective(self) -> dict[str, object]:
        """What was chosen where the configuration said `auto`."""
        return self._built.effective

    def generate(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[GenerationOutput]:
        """Complete every prompt (text or token ids) and return the outputs in their order.

        A request that is refused, or fails (a step that raised, `NotFiniteError`), comes back with `error` set, and the
        others finish.

        Raises:
            Exception: the first `error`, if every request has one.
            ValueError: `params` does not match `prompts`, or this was closed.
        """
        batch: list[Any] = [prompts] if _is_one(prompts) else list(prompts)
        return self._run(batch, self._encode, _params_for(batch, params))

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
        return self._run(batch, self._encode_chat, _params_for(batch, params))

    def stream(self, prompt: Prompt | Messages, params: SamplingParams | None = None) -> Iterator[StreamChunk]:
        """Yield the answer to a prompt or a conversation piece by piece. Closing the iterator aborts the request.

        Raises:
            ValueError: the request is refused, its logits are not finite (`NotFiniteError`), or this was closed.
            Exception: what a step raised that ended the request.
        """
        is_chat = not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], Mapping)
        _, ids = self._encode_chat(prompt) if is_chat else self._encode(prompt)  # type: ignore[arg-type]
        mine: list[int] = []
        try:
            self._add(mine, ids, params or SamplingParams(), streams=True)
            finished = False
            while not finished:
                output = self._shared.next(mine[0])
                if output.error is not None:
                    raise output.error
                finished = output.finished
                yield StreamChunk(output.text_delta, output.new_token_ids, output.finish_reason)
        finally:
            self._shared.leave(mine)

    def close(self) -> None:
        """Give back threads and memory, after the step that runs. Idempotent."""
        self._shared.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(
        self, batch: list[Any], encode: Callable[[Any], tuple[str | None, list[int]]], params: list[SamplingParams]
    ) -> list[GenerationOutput]:
        outputs: list[GenerationOutput] = []
        mine: list[int] = []
        try:
            pending = []
            for prompt, wanted in zip(batch, params, strict=True):
                output = GenerationOutput(prompt if isinstance(prompt, str) else None, [])
                outputs.append(output)
                try:
                    _, output.prompt_token_ids = encode(prompt)
                    self._add(mine, output.prompt_token_ids, wanted)
                    pending.append(output)
                except ValueError as refusal:
                    output.error = refusal
            for request_id, output in zip(mine, pending, strict=True):
                _fill(output, self._shared.next(request_id))
        finally:
            self._shared.leave(mine)
        if outputs and all(output.error for output in outputs):
            raise next(output.error for output in outputs if output.error)
        return outputs

    def _add(self, mine: list[int], ids: list[int], params: SamplingParams, *, streams: bool = False) -> None:
        want_text = self.tokenizer is not None
        spec = RequestSpec(prompt_token_ids=ids, params=params, want_text=want_text, streams=streams)
        self._shared.add(mine, spec)

    def _encode_chat(self, messages: Messages) -> tuple[str | None, list[int]]:
        return None, self._require_tokenizer().apply_chat_template(messages)

    def _encode(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        if isinstance(prompt, str):
            return prompt, self._require_tokenizer().encode(prompt)
        if not isinstance(prompt, Iterable):
            raise ValueError(f"prompt {prompt!r} is neither text nor a list of token ids; pass one of them")
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
    output.record, output.error = last.record, last.error
    if last.error is None:
        output.outputs = [Completion(last.text, last.token_ids, last.finish_reason, last.logprobs)]
