"""Which packages may import which, what must stay light, and how long a file may get."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED_IN_PLUGINS = (
    "framework.interfaces",
    "framework.toolkit",
    "framework.registry",
    "framework.execution.kernels",
    "plugins",
)
LAYERS = (
    "framework.interfaces",
    "framework.registry",
    "framework.toolkit",
    "framework.engine",
    "framework.models.layers",
    "framework.models",
    "framework.models.loading",
    "framework.records.metrics",
    "framework.records",
    "framework.records.analysis",
    "framework.records.tracking",
    "framework.config",
    "framework.workloads",
    "framework.workloads.traces",
    "framework.execution.device",
    "framework.execution.kernels",
    "framework.execution.step",
    "framework.execution.graphs",
    "framework.execution.rank",
    "framework.execution.parallel",
    "framework.execution",
    "framework.simulation",
    "framework.simulation.calibration",
    "framework.conformance.kit",
    "framework.conformance.checks",
    "framework.conformance",
    "framework.app.launching",
    "framework.app",
    "framework.app.cli",
)
"""From the ground up. A module imports from its own package and from packages that come earlier in this list. A package
that is not listed counts as part of the one around it."""


IN_FAMILIES = ("framework.models.family", "framework.models.decoder_layer", "framework.models.layers")
"""What the families in `plugins/models/` import as well: the parts that their layers are built from."""
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
        if under(name, ("framework", "tests", "experiments"))
        and not under(name, ALLOWED_IN_PLUGINS + (IN_FAMILIES if path.parent.name == "models" else ()))
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


OMEGACONF = ("framework.config", "framework.registry", "framework.app.cli", "framework.app.launching")
"""Where a composed configuration is at home. What stands below takes typed settings and plain mappings."""
STILL_WITH_A_DICTCONFIG = {"app/experiment.py"}
"""Where the configuration of a cell becomes `Settings`, inside the part of a run whose errors are recorded."""


def test_a_composed_configuration_stays_at_home() -> None:
    found = set()
    for path in files("framework", "plugins"):
        relative = path.relative_to(ROOT)
        module = ".".join(relative.with_suffix("").parts)
        if not under(module, OMEGACONF) and any(under(name, ("omegaconf",)) for name in imports(path)):
            found.add(str(relative).removeprefix("framework/"))
    assert found == STILL_WITH_A_DICTCONFIG


def layer(module: str) -> int | None:
    """The place of the innermost listed package around `module`; None for `framework` itself, which only re-exports."""
    around = [package for package in LAYERS if under(module, (package,))]
    return LAYERS.index(max(around, key=len)) if around else None


def test_imports_run_down_the_layers_only() -> None:
    wrong = []
    for path in files("framework"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        floor = layer(module)
        for name in imports(path):
            other = layer(name)
            if floor is not None and other is not None and other > floor:
                wrong.append((module, name))
    assert wrong == []


def test_every_package_is_a_layer_or_in_one() -> None:
    packages = {"framework." + path.name for path in (ROOT / "framework").iterdir() if (path / "__init__.py").exists()}
    assert packages == {".".join(name.split(".")[:2]) for name in LAYERS}
    assert [name for name in LAYERS if not (ROOT / name.replace(".", "/")).is_dir()] == []


def test_the_project_can_be_taken_in_at_a_glance() -> None:
    entries = [path.name for path in (ROOT / "framework").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 14, sorted(entries)
    folders = {path.parent for path in files("framework", "plugins")}
    crowded = {str(folder): len(list(folder.glob("*.py"))) for folder in folders if len(list(folder.glob("*.py"))) > 21}
    assert crowded == {}


def test_a_plugin_file_holds_one_registered_class() -> None:
    counts = {
        str(path): path.read_text().count(".register(") for path in files("plugins") if path.name != "__init__.py"
    }
    assert {path: count for path, count in counts.items() if count != 1} == {}


def loaded_by(statement: str) -> set[str]:
    """Which heavy libraries are in a fresh interpreter after `statement`."""
    heavy = ("torch", "wandb", "transformers", "pandas")
    code = f"{statement}\nimport sys; print(*(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["scheduler", "eviction", "graph", "attention", "sampler", "cost_model", "router", "predictor"]
)
def test_interfaces_do_not_load_torch(module: str) -> None:
    assert loaded_by(f"import framework.interfaces.{module}") == set()


def test_discovering_plugins_loads_nothing_heavy() -> None:
    assert loaded_by("from framework.registry.discovery import discover; discover()") == set()


def test_the_engine_runs_without_torch() -> None:
    assert loaded_by("import framework.engine.engine, framework.interfaces.executor, framework") == set()


def test_a_simulation_is_built_without_torch() -> None:
    overrides = ["executor=simulated", "model=qwen3_0_6b", "workload=synthetic", "tracker=files"]
    statement = (
        "from framework.config.compose import compose; from framework.config.settings import settings_of; "
        "from framework.simulation.build import build_simulated; "
        f"build_simulated(settings_of(compose({overrides})))"
    )
    assert loaded_by(statement) == set()


def test_files_stay_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in files("framework", "plugins", "tests")}
    assert {str(path): length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_the_work_of_a_step_is_named_by_keyword() -> None:
    """`StepShape` has 13 fields, and most of them are integers."""
    calls = [
        (str(path), node.lineno)
        for path in files("framework", "plugins", "tests", "experiments")
        if "StepShape(" in path.read_text()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "StepShape" and node.args
    ]
    assert calls == []
