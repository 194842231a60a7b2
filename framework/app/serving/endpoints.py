"""The endpoints: a body is checked, its prompts go to the engine, and what comes back is written down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from framework.app.prompts import ContentError, content_text
from framework.app.serving.answers import Answer, Choice
from framework.app.serving.client import EngineClient, RefusedError
from framework.app.serving.protocol import ChatBody, CompletionBody, DetokenizeBody, Sampling, TokenizeBody
from framework.app.serving.settings import FrontSettings
from framework.app.serving.statistics import Statistics
from framework.engine.bans import through_bias
from framework.engine.output import TextTracker
from framework.interfaces.sampling_params import SamplingParams

B = TypeVar("B", bound=BaseModel)


class ApiError(Exception):
    """An answer that is an error, in OpenAI's form."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param = status, param

    def response(self) -> Response:
        """The JSON body that `openai` clients turn into an exception."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.status}
        headers = {"Retry-After": "1"} if self.status in (429, 503) else None
        return JSONResponse({"error": error}, self.status, headers)


class Endpoints:
    """The handlers, over one engine and one tokenizer."""

    def __init__(self, engine: EngineClient, tokenizer: Any, settings: FrontSettings) -> None:
        self.engine, self.tokenizer, self.settings = engine, tokenizer, settings
        self.statistics = Statistics(settings.model_name)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = await self._body(request, ChatBody)
        prompt = self._chat_prompt(body)
        max_tokens = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
        if max_tokens is None:
            max_tokens = max(1, self.settings.max_model_len - len(prompt))
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        if body.top_logprobs is not None and not body.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs=true", "top_logprobs")
        return self._serve(body, [prompt], max_tokens, logprobs, chat=True)

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = await self._body(request, CompletionBody)
        given: Any = body.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            given = [given]
        if not given:
            raise ApiError(400, "prompt is empty; pass at least one token", "prompt")
        prompts = [self._encode(one, "prompt") if isinstance(one, str) else list(one) for one in given]
        return self._serve(body, prompts, body.max_tokens, body.logprobs, chat=False, echo=body.echo)

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize: text or a conversation to ids."""
        body = await self._body(request, TokenizeBody)
        if (body.prompt is None) == (body.messages is None):
            raise ApiError(400, "pass either prompt or messages", "prompt")
        if body.messages is not None:
            ids = self._chat_prompt(ChatBody(messages=body.messages))
        else:
            ids = self._encode(body.prompt or "", "prompt", add_special_tokens=body.add_special_tokens)
        return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": self.settings.max_model_len})

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize: ids to text."""
        body = await self._body(request, DetokenizeBody)
        size = self.settings.vocab_size
        if bad := [token for token in body.tokens if not 0 <= token < size]:
            raise ApiError(400, f"token id {bad[0]} is out of range; this model's ids are 0 to {size - 1}", "tokens")
        return JSONResponse({"prompt": self.tokenizer.decode(body.tokens, skip_special_tokens=False)})

    async def tokenizer_info(self, request: Request) -> Response:
        """GET /tokenizer_info, from which lm-eval learns that it can tokenise here."""
        special = self.tokenizer.special_tokens
        return JSONResponse({name: special.get(name) for name in ("eos_token", "bos_token", "pad_token")})

    async def models(self, request: Request) -> Response:
        """GET /v1/models: the one model."""
        settings = self.settings
        card = {"id": settings.model_name, "object": "model", "created": int(settings.started), "owned_by": "servelab"}
        return JSONResponse({"object": "list", "data": [{**card, "max_model_len": settings.max_model_len}]})

    async def health(self, request: Request) -> Response:
        """GET /health: 200 while requests are accepted."""
        if self.engine.draining:
            raise ApiError(503, "the server is shutting down")
        return JSONResponse({"status": "ok"})

    async def version(self, request: Request) -> Response:
        """GET /version."""
        return JSONResponse({"version": self.settings.version, "engine": "ServeLab"})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics, for Prometheus."""
        return Response(self.statistics.exposition(self.engine.stats), media_type=self.statistics.content_type)

    async def status(self, request: Request) -> Response:
        """GET /status: what the status page shows."""
        shown = {
            "model": self.settings.model_name,
            "draining": self.engine.draining,
            "policies": self.settings.policies,
        }
        return JSONResponse({**shown, **self.engine.stats, "latency": self.statistics.quantiles()})

    async def _body(self, request: Request, kind: type[B]) -> B:
        """The checked body.

        Raises:
            ApiError: 400 with the path of the field, 408 for one that comes too slowly, 413 for one that is too long.
        """
        limit, data = self.settings.max_body_bytes, bytearray()
        try:
            async with asyncio.timeout(self.settings.read_limit_s):
                async for piece in request.stream():
                    data += piece
                    if len(data) > limit:
                        raise ApiError(413, f"the body is longer than serving.max_body_bytes={limit}")
        except TimeoutError:
            seconds = self.settings.read_limit_s
            raise ApiError(408, f"the body did not arrive within serving.read_limit_s={seconds:g} seconds") from None
        try:
            values = json.loads(bytes(data))
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            raise ApiError(400, f"the body is not JSON that can be read: {error}") from None
        if not isinstance(values, dict):
            raise ApiError(400, f"the body must be a JSON object, not {type(values).__name__}")
        _check_text(values, "")
        try:
            given = {name: value for name, value in values.items() if value is not None}  # null is "not given"
            body = kind.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            what = f"{where} is not served" if first["type"] == "extra_forbidden" else f"{where}: {first['msg']}"
            raise ApiError(400, what, where) from None
        asked = getattr(body, "model", None)
        if asked not in (None, "", self.settings.model_name):
            raise ApiError(
                404, f"model {asked!r} is not served here; this server has {self.settings.model_name!r}", "model"
            )
        return body

    def _encode(self, text: str, param: str, **options: Any) -> list[int]:
        if not text:
            raise ApiError(400, f"{param} is empty; pass at least one token", param)
        return list(self.tokenizer.encode(text, **options))

    def _chat_prompt(self, body: ChatBody) -> list[int]:
        if not body.messages:
            raise ApiError(400, "messages=[] must hold at least 1 message; pass one with role user", "messages")
        messages = [_message(message, f"messages.{i}") for i, message in enumerate(body.messages)]
        variables = dict(body.chat_template_kwargs)
        if body.tools and body.tool_choice != "none":
            variables["tools"] = body.tools
        try:
            if not self.tokenizer.has_chat_template:
                text = "\n".join(f"{message['role']}: {message['content'] or ''}" for message in messages)
                return list(self.tokenizer.encode(text + "\nassistant:"))
            return list(
                self.tokenizer.apply_chat_template(
                    messages, add_generation_prompt=body.add_generation_prompt, **variables
                )
            )
        except (ValueError, TypeError) as error:
            raise ApiError(400, f"the chat template refuses these messages: {error}", "messages") from None

    def _serve(
        self,
        body: Sampling,
        prompts: list[list[int]],
        max_tokens: int,
        logprobs: int | None,
        *,
        chat: bool,
        echo: bool = False,
    ) -> Response:
        """A response that starts, follows and, if the client goes, aborts the requests at the engine."""
        if self.engine.draining:
            raise ApiError(503, "the server is shutting down")
        if body.stream and body.prompt_logprobs is not None:
            raise ApiError(400, "prompt_logprobs cannot be streamed; pass echo and logprobs", "prompt_logprobs")
        num_new, most = len(prompts) * body.n, self.settings.max_streams
        if self.engine.num_open + num_new > most:
            raise ApiError(429, f"serving.max_streams={most} requests are open; try again later")
        try:
            wanted = [count for count in (body.prompt_logprobs, logprobs if echo else None) if count is not None]
            of_prompt = max(wanted, default=None)
            max_tokens += body.prompt_only  # the engine generates a token at least
            params = [body.sampling(max_tokens, logprobs, index, of_prompt) for index in range(body.n)]
            if body.bad_words:  # the tokenizer is here, and not in the engine's process
                params = [through_bias(one, self.tokenizer) for one in params]
        except ValueError as error:
            raise ApiError(400, str(error), str(error).partition("=")[0]) from None
        return EngineResponse(self, body, prompts, params, chat=chat, echo=echo)

    def start(
        self, body: Sampling, prompts: list[list[int]], params: list[SamplingParams], *, echo: bool
    ) -> list[Choice]:
        """Send every choice of every prompt to the engine."""
        choices: list[Choice] = []
        for prompt in prompts:
            prefix = self.tokenizer.decode(prompt) if echo else ""
            for number, one in enumerate(params):
                call = self.engine.add(prompt, one, priority=body.priority, client=body.user)
                tracker = TextTracker(
                    self.tokenizer.stream_decoder(skip_special_tokens=body.skip_special_tokens),
                    body.stops,
                    min_tokens=body.min_tokens,
                    include_stop=body.include_stop_str_in_output,
                )
                choice = Choice(len(choices), call, tracker, len(prompt) if number == 0 else 0, prefix)
                choice.prompt_only = body.prompt_only
                choice.echoed = prompt if echo and one.logprobs is not None else None
                choices.append(choice)
        return choices


class EngineResponse(Response):
    """Runs while the client listens: streamed or whole. A client that goes aborts its requests."""

    def __init__(
        self,
        endpoints: Endpoints,
        body: Sampling,
        prompts: list[list[int]],
        params: list[SamplingParams],
        *,
        chat: bool,
        echo: bool,
    ) -> None:
        super().__init__()
        self._endpoints, self._asked, self._prompts, self._params = endpoints, body, prompts, params
        self._chat, self._echo = chat, echo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        endpoints, started_s = self._endpoints, time.monotonic()
        asked, params = self._asked, self._params
        choices = endpoints.start(asked, self._prompts, params, echo=self._echo)
        answer = Answer(self._chat, endpoints.settings.model_name, choices, endpoints.tokenizer)
        answer.num_top, answer.prompt_logprobs = params[0].logprobs or 0, asked.prompt_logprobs
        work = asyncio.ensure_future(self._answer(answer, scope, receive, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, gone):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task
            for choice in choices:
                endpoints.engine.abort(choice.call)
                endpoints.statistics.note(choice, started_s)

    async def _answer(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            for choice in answer.choices:
                await choice.call.admitted()
            if not self._asked.stream:
                await asyncio.gather(*(self._follow(choice) for choice in answer.choices))
        except RefusedError as error:
            await ApiError(error.status, str(error)).response()(scope, receive, send)
            return
        if self._asked.stream:
            await self._stream(answer, send)
            return
        failed = next((choice.error for choice in answer.choices if choice.finish_reason == "failed"), None)
        response = JSONResponse(answer.whole()) if failed is None else ApiError(500, failed).response()
        await response(scope, receive, send)

    async def _follow(self, choice: Choice, emit: Callable[[str, int], Awaitable[None]] | None = None) -> None:
        """Take the news of one choice until it ends."""
        while choice.finish_reason is None:
            seen = len(choice.logprobs)
            delta = choice.take(await choice.call.take())
            if choice.finish_reason is not None:
                self._endpoints.engine.abort(choice.call)  # after a stop string the engine would go on
            if emit is not None:
                await emit(delta, seen)

    async def _stream(self, answer: Answer, send: Send) -> None:
        options = self._asked.stream_options
        totals, running_totals = (
            bool(options and options.include_usage),
            bool(options and options.continuous_usage_stats),
        )
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        async def follow(choice: Choice) -> None:
            if answer.chat:
                await write(answer.opening(choice))
            elif choice.prefix and choice.echoed is None:
                await write(answer.chunk(choice, choice.prefix, (), usage=False))

            async def emit(delta: str, seen: int) -> None:
                if choice.finish_reason == "failed":
                    await write(_error_event(500, choice.error))
                elif delta or choice.finish_reason is not None or choice.logprobs[seen:]:
                    await write(answer.chunk(choice, delta, choice.logprobs[seen:], usage=running_totals))

            await self._follow(choice, emit)

        try:
            await asyncio.gather(*(follow(choice) for choice in answer.choices))
            await write(answer.closing(usage=totals))
        except RefusedError as error:  # the engine ended in the middle
            await write(_error_event(error.status, str(error)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _error_event(status: int, message: str) -> bytes:
    """What a stream says in place of further text."""
    event = {"error": {"message": message, "type": "server_error", "code": status}}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _message(message: dict[str, Any], where: str) -> dict[str, Any]:
    """A message with its content as one text.

    Raises:
        ApiError: naming the path of what is wrong.
    """
    if not isinstance(message.get("role"), str):
        raise ApiError(400, f"{where}.role must be a string", f"{where}.role")
    try:
        content = content_text(message.get("content"), f"{where}.content")
    except ContentError as error:
        raise ApiError(400, str(error), error.where) from None
    if not content and not message.get("tool_calls"):
        raise ApiError(400, f"{where}.content is empty", f"{where}.content")
    return {**message, "content": content}


def _check_text(value: Any, where: str) -> None:
    """Refuse text that is not Unicode (a lone surrogate), with its path."""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ApiError(400, f"{where}: a lone surrogate is not text", where) from None
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list) and value and not isinstance(value[0], int):
        for i, inner in enumerate(value):
            _check_text(inner, f"{where}.{i}")


def errors_as_json(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """`handler` with every `ApiError` turned into its response."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except ApiError as error:
            return error.response()

    return handle
