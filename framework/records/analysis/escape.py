"""Escapes names and texts of records for each format, since a name may mean something else in LaTeX.

HTML is not here: the page's templates escape by themselves.
"""

from __future__ import annotations

import re

_MARKDOWN = re.compile(r"([\\`*\[\]<>|~$&#])")
_EDGE_OF_A_WORD = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_START_OF_A_BLOCK = re.compile(r"^(\s*\d*)([+=.)-])")


def printable(text: str) -> str:
    """`text` with what cannot be seen (control characters, lone surrogates, marks of direction) as escapes.

    Line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape", "surrogatepass").decode()
        for one in text
    )


def for_figure(text: str) -> str:
    """`text` for matplotlib: between two `$` it sees a formula, and it hides labels that begin with `_`."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def for_markdown(text: str) -> str:
    """`text` on one line of Markdown, in a table or not: no element, link, emphasis or formula comes of it."""
    text = _MARKDOWN.sub(r"\\\1", " ".join(text.split("\n")))
    text = _EDGE_OF_A_WORD.sub(r"\\_", text)  # inside of a word it means nothing
    return _START_OF_A_BLOCK.sub(r"\1\\\2", text)


def for_file_name(text: str) -> str:
    """`text` as a part of a file's name or of an HTML id."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:100]
