"""Registration: a constructor becomes a typed config, and what cannot become one is refused with file and class."""

from __future__ import annotations

import enum
import sys
import types
from pathlib import Path
from typing import Any, Literal

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from framework.interfaces import Scheduler
from framework.interfaces.sampler import Sampler
from framework.registry import ATTENTIONS, REGISTRIES, Registry, fingerprint

BASE = "framework.interfaces.scheduler:Scheduler"


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Plain(Scheduler):
    """First line.

    More.
    """

    def __init__(
        self,
        *,
        size: int,
        share: float = 1,
        mode: Literal["fast", "slow"] = "fast",
        weights: dict[str, float] | None = None,
        sizes: list[int] = [1, 2],  # noqa: B006 (as authors write it)
        colour: Colour = Colour.RED,
    ) -> None:
        self.got = (size, share, mode, weights, sizes, colour)

    def schedule(self, queue: Any, plan: Any) -> None:
        pass


@pytest.fixture
def registry() -> Registry:
    return Registry("test_scheduler", BASE)


def node(registry: Registry, name: str) -> Any:
    return OmegaConf.create(ConfigStore.instance().repo[registry.kind][f"{name}.yaml"].node)


def test_build_passes_typed_values_of_the_config(registry: Registry) -> None:
    registry.register("plain")(Plain)
    cfg = node(registry, "plain")
    cfg.size, cfg.colour, cfg.share = "3", "BLUE", 2
    assert registry.build(cfg).got == (3, 2.0, "fast", None, [1, 2], Colour.BLUE)
    assert registry.build({"name": "plain", "size": 4}).got[0] == 4


def test_config_is_typed(registry: Registry) -> None:
    registry.register("plain")(Plain)
    with pytest.raises(ValidationError):
        node(registry, "plain").size = "many"
    with pytest.raises(ValidationError):
        node(registry, "plain").sizes = ["many"]


def test_list_defaults_are_not_shared_between_configs(registry: Registry) -> None:
    registry.register("plain")(Plain)
    node(registry, "plain").sizes.append(3)
    assert registry.build({"name": "plain", "size": 1, "sizes": node(registry, "plain").sizes}).got[4] == [1, 2]


def test_entry_keeps_documentation_file_and_declared_types(registry: Registry) -> None:
    registry.register("plain")(Plain)
    entry = registry.entry("plain")
    assert entry.doc.splitlines()[0] == "First line."
    assert entry.file == __file__
    assert {p.name: p.type_name for p in entry.parameters} == {
        "size": "int",
        "share": "float",
        "mode": "Literal['fast', 'slow']",
        "weights": "dict[str, float] | None",
        "sizes": "list[int]",
        "colour": "Colour",
    }
    assert [p.name for p in entry.parameters if p.required] == ["size"]


def test_parameter_without_default_has_to_be_set(registry: Registry) -> None:
    registry.register("plain")(Plain)
    with pytest.raises(ValueError, match=r"test_scheduler\.size \(int\) has no default"):
        registry.build(node(registry, "plain"))


def test_constructor_of_a_base_is_inherited(registry: Registry) -> None:
    registry.register("child")(type("Child", (Plain,), {"__module__": __name__}))
    assert registry.entry("child").parameters[0].name == "size"


def scheduler(init: Any) -> type:
    return type("Mine", (Plain,), {"__init__": init, "__module__": __name__})


def positional(self: Any, chunk: int = 1) -> None: ...
def unannotated(self: Any, *, chunk=1) -> None: ...  # type: ignore[no-untyped-def]
def catch_all(self: Any, **keys: int) -> None: ...
def untypable(self: Any, *, chunk: tuple[int, ...] = ()) -> None: ...
def unknown(self: Any, *, chunk: Chunk = 1) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def contradicting(self: Any, *, chunk: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013
def reserved(self: Any, *, name: str = "") -> None: ...


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (positional, r"'chunk' must be keyword-only"),
        (unannotated, r"'chunk' needs a type annotation"),
        (catch_all, r"\*\*kwargs"),
        (untypable, r"'chunk': type tuple\[int, \.\.\.\] cannot be configured; use int"),
        (unknown, r"'chunk': name 'Chunk' is not defined"),
        (contradicting, r"'None' for field of type 'int'"),
        (reserved, r"'name' is taken"),
    ],
)
def test_bad_constructors_are_refused_naming_file_and_class(registry: Registry, init: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        registry.register("bad")(scheduler(init))
    assert __file__ in str(caught.value)
    assert "class Mine" in str(caught.value)
    assert registry.names() == []


def test_wrong_base_names_the_right_one(registry: Registry) -> None:
    with pytest.raises(TypeError, match=r"must be a subclass of framework\.interfaces\.scheduler\.Scheduler"):
        registry.register("bad")(dict)


def test_duplicate_name_names_the_other_file(registry: Registry) -> None:
    registry.register("plain")(Plain)
    with pytest.raises(ValueError, match=r"taken by .*test_registry\.py"):
        registry.register("plain")(scheduler(Plain.__init__))


def test_a_notebook_cell_can_be_run_again(registry: Registry) -> None:
    def cell(module: str) -> type:
        return type("Mine", (Plain,), {"__module__": module})

    registry.register("mine")(cell("__main__"))
    again = cell("__main__")
    assert registry.register("mine")(again) is registry.get("mine") is again
    with pytest.raises(ValueError, match="taken"):
        registry.register("mine")(cell(__name__))


def test_unusable_name_is_refused(registry: Registry) -> None:
    with pytest.raises(ValueError, match="may hold"):
        registry.register("Not-A Name")(Plain)


def test_unknown_name_lists_the_choices(registry: Registry) -> None:
    registry.register("plain")(Plain)
    with pytest.raises(ValueError, match="choose from plain"):
        registry.get("plian")


def test_framework_arguments_come_by_position() -> None:
    samplers = Registry("test_sampler", "framework.interfaces.sampler:Sampler", ("vocab_size", "device"))

    class Mine(Sampler):
        @classmethod
        def unsupported_reason(cls, params: Any) -> str | None:
            return None

        def prepare(self, params: Any) -> Any: ...
        def sample(self, *args: Any) -> Any: ...

    samplers.register("mine")(Mine)
    assert samplers.build({"name": "mine"}, 7, "cpu").vocab_size == 7
    with pytest.raises(TypeError, match=r"takes \(self, vocab_size, device\) by position"):
        samplers.register("worse")(type("Worse", (Mine,), {"__init__": reserved, "__module__": __name__}))


def test_reserved_choice_has_no_class() -> None:
    assert "auto" in ATTENTIONS.names()
    with pytest.raises(ValueError, match="resolve it"):
        ATTENTIONS.get("auto")


def test_fingerprint_follows_the_set_of_plugins(registry: Registry) -> None:
    before = registry.fingerprint()
    registry.register("plain")(Plain)
    with_one = registry.fingerprint()
    assert before != with_one == registry.fingerprint()
    assert len(fingerprint()) == 16


def test_fingerprint_follows_the_source(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.register("plain")(Plain)
    before = registry.fingerprint()
    changed = tmp_path / "changed.py"
    changed.write_text("# edited")
    module = types.ModuleType(Plain.__module__)
    module.__file__ = str(changed)
    monkeypatch.setitem(sys.modules, Plain.__module__, module)
    assert registry.fingerprint() != before


def test_every_kind_has_a_registry() -> None:
    assert set(REGISTRIES) == {
        "scheduler",
        "eviction",
        "attention",
        "sampler",
        "graph",
        "cost_model",
        "router",
        "predictor",
        "workload",
        "executor",
        "tracker",
        "family",
    }
