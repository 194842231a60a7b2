"""What the files of a Hugging Face folder say of its tokenizer: the settings, special and added tokens, chat templates.

The order of precedence is that of `transformers` 5: where `tokenizer_config.json` lists all added tokens
(`added_tokens_decoder`), the older `special_tokens_map.json` and `added_tokens.json` are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from framework.toolkit.read_file import read_json_object, read_text

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_CONFIG, _SPECIAL_MAP, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_TEMPLATE, _TEMPLATES = "chat_template.jinja", "additional_chat_templates"
_MAX_TEMPLATE_BYTES = 1 << 20
_LISTED = "added_tokens_decoder"


class TokenizerFolder:
    """The settings of the tokenizer in `folder`.

    Attributes:
        special_tokens: text of `bos_token`, `eos_token`, ..., those that exist.

    Raises:
        ValueError: naming the file with a wrong value.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = _read(folder / _CONFIG)
        merged = dict(self.settings)
        if _LISTED not in self.settings:
            merged |= _read(folder / _SPECIAL_MAP)
        self.special_tokens = _special_tokens(folder, merged)
        self._extra = _extra_special(folder, merged)

    def add_tokens(self, backend: tokenizers.Tokenizer) -> None:
        """Add the tokens that `tokenizer.json` lacks, in the order of their ids.

        Raises:
            ValueError: naming the file, for a token whose id is another than the file says.
        """
        known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
        named = {*self.special_tokens.values(), *self._extra}
        path, listed = self._listed()
        for token_id, token in sorted(listed.items()):
            if token.content in named:
                token.special = True
            if repr(known.get(token.content)) == repr(token):
                continue
            _add(backend, token)
            if (found := backend.token_to_id(token.content)) != token_id:
                raise ValueError(
                    f"{path}: token {token.content!r} has id {token_id} there, but the tokenizer gives it {found}; "
                    f"the files of {self.folder} don't belong together: download or save the tokenizer again"
                )
            known[token.content] = token
        for text in [*self.special_tokens.values(), *self._extra]:
            if text not in known:
                _add(backend, AddedToken(text, special=True, normalized=False))

    def _listed(self) -> tuple[Path, dict[int, AddedToken]]:
        path = self.folder / _CONFIG
        if _LISTED in self.settings:
            listed = self.settings[_LISTED]
            try:
                return path, {int(token_id): _added_token(value) for token_id, value in listed.items()}
            except (AttributeError, TypeError, ValueError) as error:
                raise ValueError(f"{path}: {_LISTED} must map ids to tokens: {error}") from error
        path = self.folder / _ADDED
        ids = _read(path)
        if wrong := [text for text, token_id in ids.items() if isinstance(token_id, bool) or type(token_id) is not int]:
            raise ValueError(f"{path}: the id of {wrong[0]!r} must be an integer, not {ids[wrong[0]]!r}")
        special = {*self.special_tokens.values(), *self._extra}
        return path, {
            token_id: AddedToken(text, normalized=text not in special, special=text in special)
            for text, token_id in ids.items()
        }

    def chat_templates(self) -> dict[str, str]:
        """Name -> source; the usual one is called `default`. Files come before `tokenizer_config.json`."""
        path = self.folder / _TEMPLATE
        files = {"default": path} if path.exists() else {}
        files |= {file.stem: file for file in sorted((self.folder / _TEMPLATES).glob("*.jinja"))}
        if files:
            return {name: read_text(file, max_bytes=_MAX_TEMPLATE_BYTES) for name, file in files.items()}
        return named_templates(self.settings.get("chat_template"), str(self.folder / _CONFIG))


def named_templates(template: Any, where: str) -> dict[str, str]:
    """Name -> source, from a `chat_template` setting: a text, or a list of `{name, template}`.

    Raises:
        ValueError: beginning with `where`, for anything else.
    """
    if template is None:
        return {}
    if isinstance(template, str):
        return {"default": template}
    if isinstance(template, Mapping):
        named: dict[str, Any] = dict(template)
    else:
        entries: list[Any] = template if isinstance(template, list) else [None]
        if not all(isinstance(entry, Mapping) and isinstance(entry.get("name"), str) for entry in entries):
            raise ValueError(f"{where}: chat_template must be a text or a list of objects with name and template")
        named = {entry["name"]: entry.get("template") for entry in entries}
    if wrong := [name for name, source in named.items() if not isinstance(source, str)]:
        raise ValueError(f"{where}: chat_template {wrong[0]!r} must be a text, not {named[wrong[0]]!r}")
    return named


def _read(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.exists() else {}


def _special_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    texts = {name: _text(folder, name, settings[name]) for name in SPECIAL_NAMES if settings.get(name) is not None}
    return {name: text for name, text in texts.items() if text}


def _extra_special(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """Special tokens without a role of their own. Both names of the setting are in use."""
    found: list[str] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = settings.get(key) or []
        items = value if isinstance(value, list) else list(value.values()) if isinstance(value, Mapping) else [value]
        found += [_text(folder, key, item) for item in items]
    return list(dict.fromkeys(found))


def _text(folder: Path, name: str, value: Any) -> str:
    if isinstance(value, Mapping):  # a serialised AddedToken
        value = value.get("content")
    if not isinstance(value, str):
        raise ValueError(f"{folder / _CONFIG}: {name}={value!r} must be a text, or an object with it as content")
    return value


def _added_token(value: Any) -> AddedToken:
    keys = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(**{key: value[key] for key in keys if key in value})


def _add(backend: tokenizers.Tokenizer, token: AddedToken) -> None:
    add = backend.add_special_tokens if token.special else backend.add_tokens
    add([token])
