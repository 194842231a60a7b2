"""Who may import whom, what must stay light, and how long a file may get."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED_IN_PLUGINS = ("framework.interfaces", "framework.registry", "framework.kernels", "plugins")
MAX_LINES = 400


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_framework_never_imports_plugins() -> None:
    wrong = [(str(path), name) for path in files("framework") for name in imports(path) if under(name, ("plugins",))]
    assert wrong == []


def test_plugins_import_interfaces_and_libraries_only() -> None:
    wrong = [
        (str(path.relative_to(ROOT)), name)
        for path in files("plugins")
        for name in imports(path)
        if under(name, ("framework", "tests", "experiments")) and not under(name, ALLOWED_IN_PLUGINS)
    ]
    assert wrong == []


def test_nothing_imports_tests_or_experiments() -> None:
    wrong = [
        (str(path), name)
        for path in files("framework", "plugins")
        for name in imports(path)
        if under(name, ("tests", "experiments"))
    ]
    assert wrong == []


def loaded_by(statement: str) -> set[str]:
    """Which heavy libraries are in a fresh interpreter after `statement`."""
    heavy = ("torch", "wandb", "transformers", "pandas")
    code = f"{statement}\nimport sys; print(*(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["scheduler", "eviction", "graph", "attention", "sampler", "cost_model", "router"])
def test_interfaces_do_not_load_torch(module: str) -> None:
    assert loaded_by(f"import framework.interfaces.{module}") == set()


def test_discovering_plugins_loads_nothing_heavy() -> None:
    assert loaded_by("from framework.discovery import discover; discover()") == set()


def test_the_engine_runs_without_torch() -> None:
    assert loaded_by("import framework.engine.engine, framework.execution.executor") == set()


def test_a_simulation_is_built_without_torch() -> None:
    overrides = ["executor=simulated", "model=qwen3_0_6b", "workload=synthetic", "tracker=files"]
    statement = (
        "from framework.config.compose import compose; from framework.build_simulated import build_simulated; "
        f"build_simulated(compose({overrides}))"
    )
    assert loaded_by(statement) == set()


def test_files_stay_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in files("framework", "plugins", "tests")}
    assert {str(path): length for path, length in lengths.items() if length > MAX_LINES} == {}
    ours = sorted(length for path, length in lengths.items() if "tests" not in path.parts)
    assert ours[len(ours) // 2] < 100, "the median file has to stay under 100 lines"
