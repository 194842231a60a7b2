"""Figures inside a page."""

from __future__ import annotations

import io
import re
from typing import Any

from markupsafe import Markup, escape

from framework.records.analysis.comparison import Comparison
from framework.records.analysis.figures import figures, save


def drawn(comparison: Comparison) -> list[dict[str, Any]]:
    """Every figure of `comparison`: name, caption, SVG."""
    found = []
    for name, caption, figure in figures(comparison):
        stream = io.StringIO()
        save(figure, stream, "svg")
        found.append({"name": name, "caption": caption, "svg": Markup(inline_svg(stream.getvalue(), name, caption))})
    return found


def inline_svg(text: str, name: str, caption: str) -> str:
    """The SVG document `text` as an element of a page: without addresses, its ids prefixed by `name`."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
