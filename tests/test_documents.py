"""Every command and every Python block of the README and of docs/ works as printed, and the site builds."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient import NotebookClient

from framework.app.launching.sweep_file import Sweep
from framework.registry import CHOSEN, REGISTRIES
from framework.registry.discovery import discover
from tests.analysis.records import write_sweep

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(document: Path) -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks(document, "sh") for line in block.splitlines()]
    return [line for line in lines if line]


def every_command() -> list[tuple[Path, str]]:
    """Each command once, with the first document that prints it."""
    first: dict[str, Path] = {}
    for document in DOCUMENTS:
        for command in commands(document):
            first.setdefault(command, document)
    return [(document, command) for command, document in first.items()]


def fill(folder: Path, document: Path) -> None:
    """Make `folder` look like the checkout, with the files that `document` tells its reader to save."""
    for name in ("run.py", "framework", "plugins", "conf", "Makefile", "pyproject.toml", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    for block in blocks(document, "python"):
        if found := re.search(r'register\("(\w+)"\)', block):
            (folder / f"{found[1]}.py").write_text(block, encoding="utf-8")
    for block in blocks(document, "jsonl"):
        (folder / "trace.jsonl").write_text(block, encoding="utf-8")


def execute(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "COLUMNS": "120"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize(("document", "command"), [pytest.param(d, c, id=f"{d.stem}: {c}") for d, c in every_command()])
def test_command(document: Path, command: str, tmp_path: Path) -> None:
    fill(tmp_path, document)
    words = shlex.split(command)
    for word in words:
        if word.startswith("multirun/"):
            write_sweep(tmp_path / word)  # what an earlier command would have left there
        if word.startswith("resume="):
            started = tmp_path / word.removeprefix("resume=")  # a sweep that completed nothing
            started.mkdir(parents=True)
            Sweep(folder=started, arguments=["executor=simulated", "workload=synthetic", "tracker=files"]).write()
    if words[0] == "make":
        if shutil.which("make") is None:
            pytest.skip("make is not installed")
        words.insert(1, "--dry-run")  # for real it is what runs this test
    elif words[0] == "python":
        words[0] = sys.executable
    done = execute(words, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout


@pytest.mark.parametrize("block", [b for d in DOCUMENTS for b in blocks(d, "python") if "LLM(" in b])
def test_python_block(block: str, tmp_path: Path) -> None:
    done = execute([sys.executable, "-c", block], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Paris" in done.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_a_folder_that_a_command_reads_was_made_by_one_before_it(document: Path) -> None:
    made = {"multirun/first"} if document.stem == "comparing" else set()  # the sweep of the README
    for command in commands(document):
        for word in shlex.split(command):
            name = word.removeprefix("resume=")
            assert not name.startswith("multirun/") or name in made, command
            if word.startswith("hydra.sweep.dir="):
                made.add(word.partition("=")[2])


def test_the_documents_have_commands() -> None:
    assert len(commands(ROOT / "README.md")) > 8
    assert len(every_command()) > 25


def test_the_readme_names_every_option() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    discover([])
    for kind, registry in CHOSEN.items():
        (row,) = re.findall(rf"^\| `{kind}` \|.*$", readme, re.MULTILINE)
        assert [name for name in registry.names() if f"`{name}`" not in row] == [], kind


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "chunked_prefill" in (tmp_path / "site/plugins/scheduler/index.html").read_text(encoding="utf-8")


def test_generated_pages_name_every_plugin_and_every_key() -> None:
    pages = tool("pages").pages()
    for kind, registry in REGISTRIES.items():
        page = pages[f"plugins/{kind}.md"]
        for entry in registry.entries():
            assert f"### `{entry.name}`" in page
            assert all(f"`{kind}.{parameter.name}`" in page for parameter in entry.parameters)
    configuration = pages["reference/configuration.md"]
    for key in ("engine.block_size", "executor.memory_gib", "compile.level", "slo.ttft_s", "seed"):
        assert f"| `{key}` |" in configuration
    for column in ("first_token_s", "blocks_cached", "token_ids"):
        assert f"| `{column}` |" in pages["reference/tables.md"]


@pytest.mark.parametrize("name", ["parts", "request", "step", "rank"])
def test_a_picture_is_the_one_that_its_script_draws(name: str) -> None:
    kept = (ROOT / "docs/pictures" / f"{name}.svg").read_text(encoding="utf-8")
    assert tool("pictures").draw(name) == kept, "draw it again: python docs/tools/pictures.py"


@pytest.mark.parametrize("notebook", sorted((ROOT / "docs/notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = nbformat.read(notebook, as_version=4)
    assert not any(cell.get("outputs") for cell in cells.cells), "commit it without outputs"
    NotebookClient(cells, timeout=200, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in cells.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs), "its last cell draws a figure"


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs/tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
