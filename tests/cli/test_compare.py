"""`python -m framework compare`: what is printed, what is written, what an error says."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from framework.__main__ import main
from tests.analysis.records import write_cell, write_sweep


def test_tables_csv_markdown_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, out = write_sweep(tmp_path / "sweep"), tmp_path / "out"
    write_cell(sweep / "skipped", status="skipped", reason="needs a GPU")
    command = ["compare", str(sweep), "--baseline", "scheduler=prefill_first", "--metric", "ttft_s/p99,e2e_s/mean"]
    assert main([*command, "--by", "scheduler", "--correction", "holm", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "ttft_s/p99 (less is better)" in printed
    assert "e2e_s/mean (less is better)" in printed
    assert "baseline" in printed
    assert "better" in printed
    assert f"left out: {sweep / 'skipped'}: skipped: needs a GPU" in printed
    table = pd.read_csv(out / "comparison.csv")
    assert table["metric"].tolist() == ["ttft_s/p99", "e2e_s/mean"] * 2
    fast = table[(table.scheduler == "chunked_prefill") & (table.metric == "ttft_s/p99")].iloc[0]
    assert fast["mark"] == "better"
    assert fast["difference_low"] < fast["difference"] < fast["difference_high"] < 0
    assert fast["effect"] == pytest.approx(-0.1, abs=0.03)
    text = (out / "comparison.md").read_text()
    assert "| chunked_prefill | 5 | " in text
    assert "- left out: " in text
    assert {path.suffix for path in out.iterdir()} == {".csv", ".md", ".svg"}


@pytest.mark.parametrize("arguments", [["--metric", "nonsense"], ["--by", "nonsense"], ["--out", "/proc/none/here"]])
def test_errors_are_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["compare", str(write_cell(tmp_path)), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
