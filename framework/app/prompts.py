"""The forms in which callers give prompts and conversations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

Prompt = Any
"""Text, token ids (a sequence, a numpy array or a tensor), `{"prompt": text}` or `{"prompt_token_ids": ids}`."""
Messages = Sequence[Mapping[str, Any]]
"""`{"role": ..., "content": text or parts}`, oldest first."""

_KEYS = ("prompt", "prompt_token_ids")


def prompts_of(given: Any) -> list[Any]:
    """A list of prompts, of one or of several."""
    if _is_array(given):
        return [given] if given.ndim == 1 else list(given)
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        return [given]
    prompts = list(given)
    if prompts and (isinstance(prompts[0], Integral) or (_is_array(prompts[0]) and prompts[0].ndim == 0)):
        return [prompts]
    return prompts


def text_and_ids(prompt: Prompt) -> tuple[str | None, list[Any] | None]:
    """Its text or its token ids, or both if it brings both: the ids count then.

    Raises:
        ValueError: it is neither, or has a key that is not served.
    """
    if isinstance(prompt, Mapping):
        if unknown := [key for key in prompt if key not in _KEYS and prompt[key] is not None]:
            raise ValueError(
                f"a prompt with {unknown[0]!r} is not served; pass a mapping of {' or '.join(_KEYS)} alone"
            )
        text, ids = (prompt.get(key) for key in _KEYS)
        if ids is None and not isinstance(text, str):
            raise ValueError(f"prompt {prompt!r} has no text; pass a mapping of {' or '.join(_KEYS)}")
        if isinstance(ids, str | Mapping):
            raise ValueError(f"prompt_token_ids={ids!r} is no list of token ids; pass text as prompt")
        return text, None if ids is None else text_and_ids(ids)[1]
    if isinstance(prompt, str):
        return prompt, None
    if _is_array(prompt):
        if prompt.ndim != 1:
            raise ValueError(f"a prompt of shape {list(prompt.shape)} is no list of token ids; pass one dimension")
        return None, prompt.tolist()
    if not isinstance(prompt, Iterable):
        raise ValueError(f"prompt {prompt!r} is neither text nor a list of token ids; pass one of them")
    return None, [token.item() if _is_array(token) and token.ndim == 0 else token for token in prompt]


def _is_array(value: Any) -> bool:
    """Of numpy, torch or alike."""
    return hasattr(value, "tolist") and hasattr(value, "ndim")


class ContentError(ValueError):
    """Content of a message that is not served; `where` is its path."""

    def __init__(self, message: str, where: str) -> None:
        super().__init__(message)
        self.where = where


def content_text(content: Any, where: str) -> str | None:
    """The content of a message as one text.

    Raises:
        ContentError: a part that is not text, or something that is no content, at the path `where`.
    """
    if isinstance(content, str) or content is None:
        return content
    if not isinstance(content, list | tuple):
        raise ContentError(f"{where} must be a string or a list of parts", where)
    parts = []
    for i, part in enumerate(content):
        if isinstance(part, str):
            parts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            text = f"{where}.{i}: a part of type {kind} is not served; this model takes text"
            raise ContentError(text, f"{where}.{i}")
        parts.append(part["text"])
    return "".join(parts)


def plain_messages(messages: Messages) -> list[Mapping[str, Any]]:
    """`messages` with the content of each as one text.

    Raises:
        ValueError: naming the path of what is wrong.
    """
    plain: list[Mapping[str, Any]] = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f'messages.{i}={message!r} must be {{"role": ..., "content": ...}}')
        plain.append({**message, "content": content_text(message.get("content"), f"messages.{i}.content")})
    return plain
