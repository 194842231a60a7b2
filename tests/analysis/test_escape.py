"""Names reach figures, pages, tables and Markdown as they are, and mean nothing there."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from framework.__main__ import main
from framework.records import analysis
from framework.records.analysis.escape import for_figure, for_markdown, printable
from framework.records.analysis.figures import bars, save, write_figures
from framework.records.analysis.figures.style import new_figure
from framework.records.analysis.tables import print_comparison
from tests.analysis.html_checks import read
from tests.analysis.records import write_cell

NAMES = [
    r"a$\bad{x$",
    "$x_1$",
    r"\$",
    "_hidden",
    "<script>alert(1)</script>",
    '"><img src=x onerror=y>',
    "&lt;b&gt;",
    "a|b",
    "**bold** `code`",
    "[link](javascript:x)",
    "[red]x[/red]",
    "![i](x)",
    "http://x",
    "# head",
    "1. one",
    "bell\x07 null\x00 escape\x1b[31m",
    "lone \ud800",
    "turn \u202e round",
    "back\\",
    "../up",
]
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def foreign_cell(folder: Path, name: str, metrics: dict[str, float]) -> None:
    """A record as another program may write it: JSON in ASCII, where a lone surrogate is an escape."""
    summary = json.loads((write_cell(folder) / "summary.json").read_text())
    summary["requested"]["scheduler"] = {"name": name}
    summary["metrics"] |= metrics
    (folder / "summary.json").write_text(json.dumps(summary))


def test_every_name_in_figures_and_on_the_page(tmp_path: Path) -> None:
    evil = f"client/{NAMES[0]}<b>\x1b/ttft_s/p99"
    for i, name in enumerate(NAMES):
        foreign_cell(tmp_path / str(i), name, {"ttft_s/p99": 1.0 + i, evil: 1.0 + i})
    arguments = ["--by", "scheduler", "--metric", "ttft_s/p99", "--metric", printable(evil)]
    assert main(["report", str(tmp_path), *arguments]) == 0
    page = read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.problems == []
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
    texts = [html.unescape(text).strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", page.source)]
    for name in NAMES:
        assert page.texts.count(printable(name)) >= 3
        assert printable(name) in texts
    assert rf"p99 TTFT of {NAMES[0]}<b>\x1b (ms), less is better †" in texts  # of six requests


def test_a_bitmap_too(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES):
        foreign_cell(tmp_path / str(i), name, {"ttft_s/p99": 1.0 + i})
    figure = bars.draw(analysis.compare(tmp_path, by=["scheduler"], metrics=["ttft_s/p99"]))
    assert figure is not None
    save(figure, tmp_path / "bars.png", "png")


def test_a_curve_against_a_key_with_such_a_name(tmp_path: Path) -> None:
    for i in range(3):
        write_cell(tmp_path / str(i), **{'engine__../"><u>$x$': i}, metrics={"ttft_s/p99": 1.0 + i})
    (tmp_path / "out").mkdir()
    comparison = analysis.compare(tmp_path)
    assert [path.name for path in write_figures(comparison, tmp_path / "out") if "against" in path.name] == [
        "against_engine_______u__x_.svg"
    ]
    assert main(["report", str(tmp_path)]) == 0
    page = read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.problems == []
    assert "u" not in page.tags


@pytest.mark.parametrize("name", NAMES)
def test_markdown(name: str) -> None:
    as_markdown(printable(name))


@given(st.text(st.sampled_from("aZ_*`~[]()<>&|\\$#!-+=. 1\n")))
@settings(max_examples=200, deadline=None)
def test_markdown_of_any_text(text: str) -> None:
    as_markdown(text)


def as_markdown(text: str) -> None:
    """Held against a reader of Markdown: in a table, a heading and a list the text comes out as it went in."""
    expected = " ".join(text.split())
    safe = for_markdown(text)
    assert "\n" not in safe
    document = f"### x {safe}\n\n| a | b |\n| --- | --- |\n| x {safe} | y |\n\n- x {safe}\n"
    rendered = MARKDOWN.render(document)
    elements = set(re.findall(r"</?([a-z0-9]+)", rendered))
    assert elements <= {"h3", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    shown = [html.unescape(found) for found in re.findall(r"<(?:h3|td|li)>(.*?)</(?:h3|td|li)>", rendered)]
    assert [" ".join(one.split()) for one in shown] == [
        f"x {expected}".strip(),
        f"x {expected}".strip(),
        "y",
        f"x {expected}".strip(),
    ]
    assert not re.search(r"(?<!\\)\$", safe)  # GitHub's formulas


@given(st.text(st.sampled_from("a$\\{}_^ ")))
@settings(max_examples=50, deadline=None)
def test_matplotlib_of_any_text(text: str) -> None:
    figure, ((panel,),) = new_figure(1, 1, 2, 1)
    drawn = panel.set_title(for_figure(text))
    figure.canvas.draw()
    shown, is_formula = drawn._preprocess_math(drawn.get_text())
    assert (shown.strip(), bool(is_formula)) == (text.strip(), False) or not text.strip()


def test_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, name in enumerate(NAMES):
        foreign_cell(tmp_path / str(i), name, {"ttft_s/p99": 1.0 + i})
    print_comparison(analysis.compare(tmp_path, metrics=["ttft_s/p99"], by=["scheduler"]))
    shown = capsys.readouterr().out
    for name in NAMES:
        assert printable(name) in shown
    assert "\x1b[31m" not in shown
