"""The Python API, in the shape that users of vLLM know.

with LLM("smollm2", scheduler="prefill_first", max_num_seqs=8) as llm:
    for output in llm.generate(["Once upon a time"], SamplingParams(max_tokens=32)):
        print(output.outputs[0].text)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.progress import Progress

from framework.app.build import build
from framework.app.outputs import Completion, GenerationOutput, PositionLogprobs, StreamChunk
from framework.app.prompts import Messages, Prompt, plain_messages, prompts_of, text_and_ids
from framework.app.shared_engine import SharedEngine
from framework.config.api import api_overrides
from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.engine.fleet import Fleet
from framework.execution.built import BuiltEngine
from framework.interfaces.eviction import NeedsFuture
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.registry import EVICTIONS

Params = SamplingParams | Sequence[SamplingParams] | None
Encode = Callable[[Any], tuple[str | None, list[int]]]

_NOT_SERVED = {
    "lora_request": "adapters are not served; merge it into the weights, and load that folder as the model",
    "prompt_token_ids": 'pass token ids as the first argument, or {"prompt_token_ids": ids}',
    "continue_final_message": "end the text yourself: render it by get_tokenizer(), and pass it to generate",
    "chat_template_content_format": "content parts become one text; leave it out",
    "mm_processor_kwargs": "models take text; leave it out",
    "tokenization_kwargs": "tokenize by get_tokenizer(), and pass token ids",
    "prompt_adapter_request": "adapters are not served; leave it out",
    "guided_options_request": "there is no grammar; for a choice among single tokens use allowed_token_ids",
}
_NO_METHODS = {
    "llm_engine": "the engine is llm.engine",
    "beam_search": "there is no beam search; use SamplingParams(n=...)",
    **dict.fromkeys(("encode", "embed", "classify", "score", "reward"), "models generate text; there is no pooling"),
    **dict.fromkeys(("sleep", "wake_up"), "close the LLM and build another one"),
    **dict.fromkeys(("start_profile", "stop_profile"), "run.py writes a timeline with record.timeline=true"),
    "get_default_sampling_params": "SamplingParams() are the defaults; a model's generation config is not read",
    "get_metrics": "every output has its times and counts as output.metrics",
    **dict.fromkeys(("collective_rpc", "apply_model"), "the model's processes run steps alone"),
    "reset_prefix_cache": "build another LLM, or use prefix_caching=False",
}


class LLM:
    """An engine with a tokenizer around it. Close it, or use it as a context manager.

    Several threads may call it at once, and several streams may be open. All their requests run together and get the
    same tokens as alone. An interrupt (Ctrl-C) ends the call that it strikes. Open streams go on, or raise if it struck
    while a token was on its way to them. A forked process cannot use the `LLM` of its parent.

    Args:
        model: a preset (`smollm2`), a Hugging Face folder or hub id, or a `.gguf` file.
        overrides: plugin choices (`scheduler="prefill_first"`, or `scheduler={"name": ..., "max_chunk_tokens": 256}`),
            engine and executor keys by their own names (`max_num_seqs=8`, `dtype="bfloat16"`), vLLM's names of what is
            served (`tensor_parallel_size=2`, `enforce_eager=True`), any other group as a mapping
            (`record={"outputs": True}`), and `overrides=[...]` with Hydra overrides as on the command line.

    Raises:
        ValueError: a key or choice is unknown, a value has a wrong type or is out of range, or a model file is broken.
    """

    def __init__(self, model: str = "smollm2", **overrides: Any) -> None:
        self.cfg = compose(api_overrides(model, overrides))
        if issubclass(EVICTIONS.get(self.cfg.eviction.name), NeedsFuture):
            raise ValueError(
                f"eviction={self.cfg.eviction.name} needs to know all requests beforehand, as run.py does "
                f"with a workload; choose another policy, such as eviction='lru'"
            )
        self._built: BuiltEngine = build(settings_of(self.cfg))
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
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: Params = None,
        use_tqdm: bool = True,
        *,
        priority: int | Sequence[int] = 0,
        **others: Any,
    ) -> list[GenerationOutput]:
        """Complete every prompt and return the outputs in their order.

        A request that is refused, or fails (a step that raised, `NotFiniteError`), comes back with `error` set, and the
        others finish.

        Args:
            prompts: one or several of: text, token ids (a list, a numpy array or a tensor of one dimension),
                `{"prompt": text}`, `{"prompt_token_ids": ids}`.
            sampling_params: one for all, or one per prompt.
            use_tqdm: draw a progress bar if stderr is a terminal.
            priority: for schedulers that heed it, one for all or one per prompt; lower runs earlier.
            others: `params`, an older name of `sampling_params`; what vLLM has and is not served is refused by name.

        Raises:
            Exception: the first `error`, if every prompt has one.
            ValueError: `sampling_params` or `priority` does not match `prompts`, a keyword is not served, or this was
                closed.
        """
        wanted = _wanted("generate", sampling_params, others)
        return self._run(prompts_of(prompts), self._encode, wanted, use_tqdm, priority)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling_params: Params = None,
        use_tqdm: bool = True,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> list[GenerationOutput]:
        """Answer one conversation or several.

        Args:
            messages: `{"role": ..., "content": ...}` of one conversation, or a list of such lists. Content is text, or
                a list of `{"type": "text", "text": ...}`.
            sampling_params: one for all, or one per conversation.
            use_tqdm: as in `generate`.
            tools: descriptions of functions, for the template.
            add_generation_prompt: end the prompt with the beginning of an answer.
            chat_template: the source of a template, in place of the model's.
            chat_template_kwargs: further variables of the template, such as `{"enable_thinking": False}`.
            others: as in `generate`.

        Raises:
            ValueError: as for `generate`, or the model has no chat template.
        """
        wanted = _wanted("chat", sampling_params, others)
        variables = {**(chat_template_kwargs or {}), "add_generation_prompt": add_generation_prompt}
        variables |= {"chat_template": chat_template} | ({"tools": list(tools)} if tools is not None else {})
        batch: list[Any] = [messages] if _is_chat(messages) else list(messages)
        return self._run(batch, lambda one: self._encode_chat(one, variables), wanted, use_tqdm)

    def stream(
        self, prompt: Prompt | Messages, sampling_params: SamplingParams | None = None, **others: Any
    ) -> Iterator[StreamChunk]:
        """Yield the answer to a prompt or a conversation piece by piece. Closing the iterator aborts the request.

        Raises:
            ValueError: the request is refused, its logits are not finite (`NotFiniteError`), or this was closed.
            Exception: what a step raised that ended the request.
        """
        wanted = _wanted("stream", sampling_params, others)
        _, ids = self._encode_chat(prompt, {}) if _is_chat(prompt) else self._encode(prompt)
        mine: list[int] = []
        try:
            self._add(mine, ids, _params_for([prompt], wanted)[0], streams=True)
            finished = False
            while not finished:
                output = self._shared.next(mine[0])
                if output.error is not None:
                    raise output.error
                finished = output.finished
                yield StreamChunk(output.text_delta, output.new_token_ids, output.finish_reason, output.stop_reason)
        finally:
            self._shared.leave(mine)

    def get_tokenizer(self) -> Any:
        """The `Tokenizer`: `encode`, `decode`, `apply_chat_template`, `eos_token_id`, `vocab_size`.

        Raises:
            ValueError: the model has none.
        """
        return self._require_tokenizer()

    if not TYPE_CHECKING:  # a type checker is to know what exists

        def __getattr__(self, name: str) -> NoReturn:
            reason = _NO_METHODS.get(name)
            raise AttributeError(f"LLM has no {name}" + (f": {reason}" if reason else ""))

    def close(self) -> None:
        """Give back threads and memory after the running step. Calling it again does nothing."""
        self._shared.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(
        self, batch: list[Any], encode: Encode, params: Params, use_tqdm: bool, priority: int | Sequence[int] = 0
    ) -> list[GenerationOutput]:
        outputs: list[GenerationOutput] = []
        mine: list[int] = []
        try:
            pending: list[tuple[GenerationOutput, int]] = []
            priorities = _one_each("priority", batch, priority, int)
            for prompt, wanted, rank in zip(batch, _params_for(batch, params), priorities, strict=True):
                output = GenerationOutput(prompt=prompt if isinstance(prompt, str) else None, prompt_token_ids=[])
                outputs.append(output)
                try:
                    output.prompt, output.prompt_token_ids = encode(prompt)
                    for index in range(wanted.n):
                        self._add(mine, output.prompt_token_ids, wanted.of_choice(index), priority=rank)
                        pending.append((output, index))
                except ValueError as refusal:
                    output.error = refusal
            console = Console(stderr=True)
            with Progress(console=console, transient=True, disable=not use_tqdm or not console.is_terminal) as bar:
                task = bar.add_task("requests", total=len(pending))
                for request_id, (output, index) in zip(mine, pending, strict=True):
                    self._fill(output, index, request_id)
                    bar.advance(task)
        finally:
            self._shared.leave(mine)
        if outputs and all(output.error for output in outputs):
            raise next(output.error for output in outputs if output.error)
        return outputs

    def _fill(self, output: GenerationOutput, index: int, request_id: int) -> None:
        last = self._shared.next(request_id)
        if index == 0:
            output.request_id, output.record = str(request_id), last.record
            if last.error is None and last.prompt_logprobs is not None:
                entries = (PositionLogprobs(entry, self._decode_one) for entry in last.prompt_logprobs)
                output.prompt_logprobs = [None, *entries]
        if last.error is None:
            output.outputs.append(Completion.of(index, last, self._decode_one))
        else:
            output.error = output.error or last.error

    def _add(
        self, mine: list[int], ids: list[int], params: SamplingParams, *, streams: bool = False, priority: int = 0
    ) -> None:
        want_text = self.tokenizer is not None
        spec = RequestSpec(prompt_token_ids=ids, params=params, want_text=want_text, streams=streams, priority=priority)
        self._shared.add(mine, spec)

    def _encode_chat(self, messages: Messages, variables: Mapping[str, Any]) -> tuple[str | None, list[int]]:
        tokenizer = self._require_tokenizer()
        text = tokenizer.render_chat(plain_messages(messages), **variables)
        return text, tokenizer.encode(text, add_special_tokens=False)  # the template wrote BOS itself

    def _encode(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        text, ids = text_and_ids(prompt)
        return text, self._require_tokenizer().encode(text) if ids is None else ids

    def _decode_one(self, token_id: int) -> str | None:
        return None if self.tokenizer is None else self.tokenizer.decode([token_id], skip_special_tokens=False)

    def _require_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise ValueError(f"model {self.cfg.model.name} has no tokenizer; pass token ids, or set model.tokenizer")
        return self.tokenizer


def _is_chat(given: Any) -> bool:
    """Whether it is one conversation: a list of mappings with roles."""
    return (
        isinstance(given, Sequence) and not isinstance(given, str) and len(given) > 0 and isinstance(given[0], Mapping)
    )


def _wanted(method: str, sampling_params: Any, others: dict[str, Any]) -> Any:
    """The sampling parameters, by their name or the older one.

    Raises:
        ValueError: another keyword.
    """
    if (old := others.pop("params", None)) is not None:
        if sampling_params is not None:
            raise ValueError("sampling_params were given, and params, their older name, too; pass one of them")
        sampling_params = old
    for name, value in others.items():
        if name in _NOT_SERVED and (value is None or value is False):
            continue
        remedy = _NOT_SERVED.get(name, "it is no keyword of it; see help(LLM)")
        raise ValueError(f"LLM.{method} does not take {name}={value!r}: {remedy}")
    return sampling_params


def _params_for(batch: Sequence[object], params: Any) -> list[SamplingParams]:
    return _one_each("SamplingParams", batch, SamplingParams() if params is None else params, SamplingParams)


def _one_each(what: str, batch: Sequence[object], given: Any, kind: type) -> list[Any]:
    """One of `kind` per prompt, of one for all or one each."""
    is_list = isinstance(given, Sequence) and not isinstance(given, str)
    each = [given] * len(batch) if isinstance(given, kind) else list(given) if is_list else [given]
    if wrong := [one for one in each if not isinstance(one, kind)]:
        raise ValueError(f"{wrong[0]!r} is no {kind.__name__}; pass {what} once, or once per prompt")
    if len(each) != len(batch):
        raise ValueError(f"{len(each)} {what} for {len(batch)} prompts; pass one, or one per prompt")
    return each
