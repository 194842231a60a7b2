"""The page of a sweep: complete, well formed, closed to the network, and alive in a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from framework.__main__ import main
from tests.analysis.html_checks import StrictPage, read
from tests.analysis.records import write_cell, write_sweep

EVIL = "<script>document.title='stolen'</script> & \"quotes\""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sweep(tmp_path_factory.mktemp("page") / "my_sweep")
    write_cell(folder / "10", status="failed", reason=EVIL, traceback=f"Traceback\n{EVIL}\n", seed=9)
    write_cell(folder / "11", status="skipped", reason="needs a GPU", scheduler="mlfq", study__question="Which one?")
    (folder / "12").mkdir()
    (folder / "12" / "steps.parquet").touch()
    cells = [{"folder": str(i), "status": "completed", "wall_s": 1.5} for i in range(10)]
    cells.append({"folder": "13", "status": "failed", "reason": "exit code -11"})
    cells.append({"folder": "14", "status": "waiting", "reason": ""})
    about = {"study": "my study", "launcher": "process", "arguments": ["seed=range(5)"], "started": "2026-01-31"}
    (folder / "sweep.json").write_text(json.dumps({**about, "cells": cells}))
    assert main(["report", str(folder), "--baseline", "scheduler=prefill_first"]) == 0
    return folder


@pytest.fixture(scope="module")
def page(sweep: Path) -> StrictPage:
    return read((sweep / "report.html").read_text(encoding="utf-8"))


def test_well_formed_and_closed_to_the_network(sweep: Path, page: StrictPage) -> None:
    assert page.problems == []
    assert len(page.ids) == len(set(page.ids))
    assert page.addresses
    assert [address for address in page.addresses if not address.startswith("#")] == []
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert not re.search(r"https?:|//[a-z]", (sweep / "report.html").read_text().replace("// Sort", ""))


def test_what_is_wide_scrolls_inside_of_the_page(page: StrictPage) -> None:
    for wide in ("table", "svg"):
        inside = re.findall(rf'<div class="scroll"><{wide}\b', page.source)
        assert len(inside) == page.tags.count(wide) > 0


def test_everything_of_the_sweep_is_there(sweep: Path, page: StrictPage) -> None:
    for text in (
        "my study",
        "Which one?",
        "seed=range(5)",
        "10completed",
        "needs a GPU",
        "exit code -11",
        "1waiting",
        "the cell never finished",
    ):
        assert text in page.texts, text
    assert page.texts.count(EVIL) == 3  # the reason twice, the traceback once: as text, not as an element
    for name in ("bars", "pareto", "latency_cdf", "timeline"):
        assert f"figure-{name}" in page.ids
    for section in ("comparison", "problems", "figures", "cells", "configuration", "environment"):
        assert section in page.ids
    assert "git_revision" + "a" * 40 in page.texts
    assert "prefill_first (6)" in page.texts  # how many cells have each value


def test_a_sweep_in_which_nothing_completed(tmp_path: Path) -> None:
    write_cell(tmp_path / "0", status="failed", reason="boom")
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "sub" / "page.html")]) == 0
    page = read((tmp_path / "sub" / "page.html").read_text())
    assert page.problems == []
    assert "boom" in page.texts
    assert "comparison" not in page.ids


def test_an_empty_folder_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "no readable record" in capsys.readouterr().err


PROBE = """
<pre id="probe"></pre><script>
const rows = (table) => [...table.tBodies[0].rows].filter((row) => !row.matches(".detail"));
const column = (table, i) => rows(table).map((row) => row.cells[i].textContent.trim());
const table = document.getElementById("cell-table");
const heads = [...table.tHead.rows[0].cells].map((th) => th.textContent.trim());
const at = heads.indexOf("ttft_s/p99");
const press = (i) => table.tHead.rows[0].cells[i].querySelector("button").click();
const found = { heads, before: column(table, at) };
press(at); found.up = column(table, at); found.sorted = table.tHead.rows[0].cells[at].getAttribute("aria-sort");
press(at); found.down = column(table, at);
press(0); found.names = column(table, 0);
const row = document.querySelector("tr.cell");
row.click(); found.opened = !row.nextElementSibling.hidden && row.nextElementSibling.offsetHeight > 0;
const input = document.getElementById("filter");
input.value = "chunked completed"; input.dispatchEvent(new Event("input", { bubbles: true }));
found.filtered = [...document.querySelectorAll("tr.cell")].filter((r) => !r.hidden).length;
found.shown = document.getElementById("shown").textContent;
found.drawn = [...document.querySelectorAll("figure svg")].map((s) => s.getBoundingClientRect().height > 50);
found.requests = performance.getEntriesByType("resource").length;
found.title = document.title;
document.getElementById("probe").textContent = JSON.stringify(found);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
def test_in_a_browser(sweep: Path, tmp_path: Path) -> None:
    probed = tmp_path / "probed.html"
    probed.write_text((sweep / "report.html").read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", probed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    assert "CONSOLE" not in done.stderr
    numbers = sorted(float(text) for text in found["before"] if text != "-")
    assert [float(text) for text in found["before"][:10]] != numbers
    assert found["up"] == [*map(str, numbers), "-", "-"]
    assert found["sorted"] == "ascending"
    assert found["down"] == [*map(str, numbers[::-1]), "-", "-"]
    assert found["names"] == [str(i) for i in range(12)]  # 2 before 10
    assert found["opened"]
    assert (found["filtered"], found["shown"]) == (5, "5")
    assert found["drawn"] == [True] * 4
    assert found["requests"] == 0
    assert found["title"] == "my study · ServeLab"
