"""Saving a tokenizer as a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from framework.models.loading.tokenizer import Tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path, **settings: Any) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`, the latter with `settings` on top."""
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    values: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **tokenizer.special_tokens}
    if tokenizer.chat_templates:
        values["chat_template"] = tokenizer.chat_templates["default"]
    values = {key: value for key, value in {**values, **settings}.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
