"""Chat templates in the dialect of Hugging Face: sandboxed Jinja with `raise_exception`, `strftime_now` and `tojson`.

Rendered here because importing `transformers` for it takes longer than loading the default model.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import jinja2
    from jinja2 import nodes
    from jinja2.parser import Parser

_MAX_INDENT = 64
_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names under which messages carry the model's reasoning; templates read the first, those of gpt-oss the second."""


class ChatTemplate:
    """A compiled template.

    Raises:
        ValueError: if the template isn't valid Jinja.
    """

    def __init__(self, template: str, special_tokens: Mapping[str, str], *, source: str = "") -> None:
        """
        Args:
            source: the file or folder that the template is from, for error messages.
        """
        self._where = f"{source}: " if source else ""
        try:
            self._template = _environment().from_string(template)
        except Exception as error:  # besides wrong syntax, what deep nesting does to Jinja's and Python's compilers
            raise ValueError(f"{self._where}the chat template is not valid Jinja: {_words(error)}") from error
        self._special_tokens = dict(special_tokens)

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool, **variables: Any) -> str:
        """The prompt of a conversation. A key of a message whose value is None counts as absent.

        Raises:
            ValueError: if the template refuses the messages, e.g. for roles that don't alternate, fails on them, or
                takes more time or memory than a template needs.
        """
        from jinja2 import TemplateError

        from framework.models.loading.template_limits import TemplateLimitError, render

        values = {"tools": None, "documents": None, **self._special_tokens, **variables}
        values |= {"messages": [_message(message) for message in messages]}
        try:
            return render(self._template, {**values, "add_generation_prompt": add_generation_prompt})
        except TemplateError as error:
            raise ValueError(f"{self._where}the chat template refuses these messages: {error}") from error
        except TemplateLimitError as error:
            raise ValueError(f"{self._where}the chat template has no end in sight: {error}") from error
        except Exception as error:  # a template is a program, and may fail like one
            raise ValueError(f"{self._where}the chat template fails on these messages: {_words(error)}") from error


def _environment() -> jinja2.Environment:
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols

    from framework.models.loading.template_limits import LimitedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the model said, for training; here its content is all there is to it."""

        tags = {"generation"}  # noqa: RUF012, Jinja reads it from the class

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    environment = LimitedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise ValueError(f'a message must be an object such as {{"role": "user", "content": "..."}}, not {message!r}')
    values = {key: value for key, value in message.items() if value is not None}
    reasoning = next((values[name] for name in _REASONING if name in values), None)
    if reasoning is None:
        return values
    return {"thinking": reasoning, **values, "reasoning_content": reasoning}


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which models have not seen.
    if isinstance(indent, int | str) and (indent if isinstance(indent, int) else len(indent)) > _MAX_INDENT:
        raise ValueError(f"tojson(indent={indent!r}): at most {_MAX_INDENT} is supported")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _raise_exception(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)
