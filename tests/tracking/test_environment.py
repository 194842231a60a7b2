"""Which code ran: the revision of the repository that tracks it, or the files of an installed package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import framework

SOURCE = Path(framework.__file__).parent
PARTS = ("__init__.py", "records/__init__.py", "records/environment.py")
SCRIPT = "import json; from framework.records.environment import environment; print(json.dumps(environment()))"


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *author, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The package, installed below a repository that has nothing to do with it."""
    site = tmp_path / "project" / ".venv" / "site-packages"
    info = site / "servelab-0.1.0.dist-info"
    info.mkdir(parents=True)
    for part in PARTS:
        (site / "framework" / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / part, site / "framework" / part)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: servelab\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("".join(f"framework/{part},,\n" for part in PARTS))
    git(tmp_path, "init", "-q", "project")
    git(tmp_path / "project", "commit", "-q", "--allow-empty", "-m", "theirs")
    return site


def seen(site: Path) -> dict[str, Any]:
    script = f"import sys; sys.path.insert(0, {str(site)!r}); {SCRIPT}"
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", script], capture_output=True, text=True, check=True, cwd=site
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_foreign_repository_around_it_is_not_its_revision(site: Path) -> None:
    found = seen(site)
    assert (found["git_revision"], found["git_dirty"], found["servelab"]) == (None, None, framework.__version__)
    files = found["installed_files_sha256"]
    assert len(files) == 64
    assert seen(site)["installed_files_sha256"] == files
    with (site / "framework" / "__init__.py").open("a") as file:
        file.write("# edited in place\n")
    assert seen(site)["installed_files_sha256"] != files


def test_where_the_code_is_tracked_the_revision_is_its_own(site: Path) -> None:
    project = site.parents[1]
    git(project, "add", "-f", ".")
    git(project, "commit", "-q", "-m", "vendored")
    (project / "their_notes.txt").write_text("nothing of ours")
    found = seen(site)
    assert (found["git_revision"], found["git_dirty"]) == (git(project, "rev-parse", "HEAD"), False)
    (site / "framework" / "__init__.py").write_text((site / "framework" / "__init__.py").read_text() + "# edited\n")
    assert seen(site)["git_dirty"] is True
