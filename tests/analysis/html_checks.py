"""Reads a page strictly: every element closed, every id once, every address inside of the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "input", "br", "hr", "img", "link", "col"}
ADDRESSES = {"src", "href", "xlink:href", "action", "data", "poster", "srcset", "background"}


class StrictPage(HTMLParser):
    """Attributes: `source`, `tags`, `ids`, `addresses`, `texts` (joined), `problems`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.problems: list[str] = []
        self.tags: list[str] = []
        self.texts = self.source = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> at {self.getpos()} closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts += data
        if self.open[-1:] == ["style"]:
            self.addresses += re.findall(r"url\(([^)]*)\)", data) + re.findall(r"@import.*", data)

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.problems.append(f"<{tag}> at {self.getpos()} repeats an attribute")
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ADDRESSES:
                self.addresses.append(value or "")
            self.addresses += re.findall(r"url\(([^)]*)\)", value or "")


def read(text: str) -> StrictPage:
    page = StrictPage()
    page.source = text
    page.feed(text)
    page.close()
    if page.open:
        page.problems.append(f"never closed: {page.open}")
    return page
