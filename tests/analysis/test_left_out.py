"""One part that cannot be read costs that part, by name, and never the comparison or the page of the others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framework.__main__ import main
from framework.records import analysis
from tests.analysis.html_checks import read
from tests.analysis.records import write_cell

METRIC = "ttft_s/p99"
NESTED = "[" * 100_000


def hollow(path: Path) -> None:
    """A table whose footer is sound and whose pages are not."""
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    path.write_bytes(content[:4] + b"\x00" * (len(content) - 4 - footer) + content[-footer:])


def a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "summary nested too deeply": (lambda c: (c / "summary.json").write_text(NESTED), "nested too deeply"),
    "summary not UTF-8": (lambda c: (c / "summary.json").write_bytes(b"\xff\xfe"), "summary.json cannot be read"),
    "summary a folder": (lambda c: a_folder(c / "summary.json"), "summary.json cannot be read: it is not a file"),
    "summary a pipe": (lambda c: a_pipe(c / "summary.json"), "summary.json cannot be read: it is not a file"),
    "requests hollow": (lambda c: hollow(c / "requests.parquet"), "requests.parquet cannot be read, so it is in no"),
    "steps hollow": (lambda c: hollow(c / "steps.parquet"), "steps.parquet cannot be read, so it is in no figure"),
    "a column missing": (
        lambda c: pq.write_table(pa.table({"arrival_s": [1.0]}), c / "requests.parquet"),
        "requests.parquet cannot be read, so it is in no figure",
    ),
    "overrides not UTF-8": (
        lambda c: ((c / ".hydra").mkdir(), (c / ".hydra" / "overrides.yaml").write_bytes(b"\xff\xfe\xfa")),
        ".hydra/overrides.yaml cannot be read",
    ),
    "overrides no YAML": (
        lambda c: ((c / ".hydra").mkdir(), (c / ".hydra" / "overrides.yaml").write_text("{[")),
        ".hydra/overrides.yaml cannot be read",
    ),
    "sweep no JSON": (lambda c: (c.parent / "sweep.json").write_text("{"), "sweep.json cannot be read"),
    "sweep a list": (lambda c: (c.parent / "sweep.json").write_text("[]"), "sweep.json holds no object"),
    "sweep of odd parts": (
        lambda c: (c.parent / "sweep.json").write_text('{"cells": 3, "arguments": "x", "study": {"a": 1}}'),
        "{'a': 1}",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_others_are_compared_and_shown(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, message = DAMAGES[kind]
    for i, scheduler in enumerate(("fifo", "sjf", "sjf")):
        write_cell(tmp_path / str(i), scheduler=scheduler, seed=i % 2, metrics={METRIC: 1.0 + i})
    damage(tmp_path / "1")
    file = message.split(" ")[0]
    if file in ("summary.json", "requests.parquet", "steps.parquet"):  # compare reads no other
        out = [] if file == "summary.json" else ["--out", str(tmp_path / "out")]  # with the figures
        assert main(["compare", str(tmp_path), "--metric", METRIC, *out]) == 0
        shown = capsys.readouterr()
        assert "+2" in shown.out  # of the two sound cells
        assert message in shown.out + shown.err
        assert str(tmp_path / "1") in shown.out + shown.err
    in_figures = file.endswith(".parquet") or kind == "summary not UTF-8"
    if not in_figures:  # drawing takes seconds, and figures read tables only
        monkeypatch.setattr("framework.records.analysis.report.drawn", lambda comparison: [])
    assert main(["report", str(tmp_path), "--metric", METRIC]) == 0
    page = read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.problems == []
    assert message in page.texts
    assert ("figure-latency_cdf" in page.ids) == in_figures


def test_a_folder_that_cannot_be_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cell(tmp_path / "0")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:  # root may enter everywhere, so permissions prove nothing
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = analysis.compare(tmp_path)
    assert [str(one) for one in result.damaged] == [
        f"{tmp_path / 'locked'}: the folder cannot be read: Permission denied"
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("nan", "'nan'"),
        ("12 ms", "'12 ms'"),
        (True, "True"),
        ([1], "[1]"),
        (10**400, "1" + "0" * 59),
    ],
)
def test_a_metric_that_is_no_number_is_named(tmp_path: Path, value: object, shown: str) -> None:
    for seed in range(3):
        write_cell(tmp_path / str(seed), seed=seed, metrics={METRIC: 1.0 + seed})
    summary = json.loads((tmp_path / "2" / "summary.json").read_text())
    summary["metrics"][METRIC] = value
    (tmp_path / "2" / "summary.json").write_text(json.dumps(summary))
    result = analysis.compare(tmp_path, metrics=[METRIC])
    assert [(row.n, row.mean.value) for row in result.rows] == [(2, 1.5)]
    assert result.warnings == [
        f"{METRIC} is not a finite number in 1 of 3 cells, which do not count: {shown} in {tmp_path / '2'}"
    ]


def test_nan_in_a_configuration_is_one_value(tmp_path: Path) -> None:
    for seed in range(2):
        write_cell(tmp_path / str(seed), seed=seed)
        summary = json.loads((tmp_path / str(seed) / "summary.json").read_text())
        summary["requested"]["engine"]["share"] = float("nan")
        (tmp_path / str(seed) / "summary.json").write_text(json.dumps(summary))
    assert analysis.compare(tmp_path).by == []


def test_a_tree_that_vanishes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep is cleaned up while its report is made: what is left is shown."""
    from framework.records.analysis import cells as module

    for seed in range(3):
        write_cell(tmp_path / str(seed), seed=seed)
    reading = module.read_cell

    def vanish(folder: Path) -> object:
        if folder.name == "1":
            shutil.rmtree(folder)
        return reading(folder)

    monkeypatch.setattr(module, "read_cell", vanish)
    result = analysis.compare(tmp_path)
    assert len(result.cells) == 2
    assert [one.folder.name for one in result.damaged] == ["1"]
