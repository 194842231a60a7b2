"""Name -> class, with the class's parameters as a typed Hydra config: one decorator publishes a plugin.

    @SCHEDULERS.register("prefill_first")
    class PrefillFirst(Scheduler):
        def __init__(self, *, max_waiting: int = 8) -> None: ...

makes `scheduler=prefill_first scheduler.max_waiting=4` valid on the command line, without a YAML file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from framework.registry.parameters import Parameter, read_parameters

C = TypeVar("C", bound=type)

_BUILT_BY_EVERY_RANK = ("attention", "sampler", "graph", "family")


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered choice. `cls` is None for a choice that the framework resolves itself (`attention=auto`)."""

    kind: str
    name: str
    cls: type | None
    doc: str
    file: str
    parameters: list[Parameter] = field(default_factory=list)


class Registry:
    """The plugins of one kind.

    Args:
        kind: Hydra group, e.g. `scheduler`.
        base: Class that plugins derive from, as `module:Class`. Resolved at registration, so that importing the
            registries imports no interface.
        supplied: Positional constructor arguments that the framework passes to `build`.
        is_chosen: Whether the configuration chooses one. Otherwise something else names it, as a model's config names
            its family, and it has neither a key nor parameters.
    """

    def __init__(self, kind: str, base: str, supplied: tuple[str, ...] = (), *, is_chosen: bool = True) -> None:
        self.kind, self.base, self.supplied, self.is_chosen = kind, base, supplied, is_chosen
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator: publish a class under `name`, its keyword-only `__init__` parameters as config keys.

        Raises:
            TypeError: wrong base class, or a parameter that cannot be a config key.
            ValueError: `name` is taken, or holds other characters than a-z, 0-9 and _.
        """

        def publish(cls: C) -> C:
            where = f"{self.kind} '{name}' ({_file(cls)}, class {getattr(cls, '__name__', cls)})"
            self._check(name, cls, where)
            try:
                parameters = read_parameters(cls, self.supplied)
            except TypeError as error:
                raise TypeError(f"{where}: {error}") from error
            if self.is_chosen:
                self._store(name, cls, parameters, where)
            elif parameters:
                keys = ", ".join(parameter.name for parameter in parameters)
                raise TypeError(
                    f"{where}: a {self.kind} has no parameters, since no configuration chooses it; got {keys}"
                )
            doc = inspect.cleandoc(cls.__doc__ or "")
            self._entries[name] = Entry(self.kind, name, cls, doc, _file(cls), parameters)
            return cls

        return publish

    def reserve(self, name: str, doc: str) -> None:
        """Make `name` a choice without a class, which the framework resolves to another one at build."""
        self._entries[name] = Entry(self.kind, name, None, doc, __file__)
        self._store(name, None, [], f"{self.kind} '{name}'")

    def names(self) -> list[str]:
        """Every choice, sorted."""
        return sorted(self._entries)

    def entries(self) -> list[Entry]:
        """Every choice, sorted by name."""
        return [self._entries[name] for name in self.names()]

    def entry(self, name: str) -> Entry:
        """What is known of the choice `name`.

        Raises:
            ValueError: no such choice; lists those that exist.
        """
        if name not in self._entries:
            raise ValueError(f"{self.kind}={name} does not exist; choose from {', '.join(self.names())}")
        return self._entries[name]

    def get(self, name: str) -> Any:
        """The class registered as `name`.

        Raises:
            ValueError: no such choice, or one without a class.
        """
        cls = self.entry(name).cls
        if cls is None:
            raise ValueError(f"{self.kind}={name} has no class of its own: resolve it before it is built")
        return cls

    def build(self, cfg: DictConfig | Mapping[str, Any], *args: Any) -> Any:
        """Construct the plugin that `cfg` (its `name` and parameters) describes, with the framework's `args`.

        Raises:
            ValueError: unknown name, or a parameter without a default that was not set.
        """
        values: Any = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)
        name = values.pop("name")
        cls = self.get(name)
        for parameter in self._entries[name].parameters:
            if parameter.required and values.get(parameter.name, "???") == "???":
                key = f"{self.kind}.{parameter.name}"
                raise ValueError(f"{key} ({parameter.type_name}) has no default: set {key}=...")
        return cls(*args, **values)

    def fingerprint(self) -> str:
        """Hash of every plugin's name, module and source: equal where two processes hold the same code."""
        return _hash(f"{name}\0{value}\n" for name, value in self.plugin_hashes().items())

    def plugin_hashes(self) -> dict[str, str]:
        """Name -> hash of the plugin's module and source. A notebook's plugins count only if every rank builds them."""
        hashes = {}
        for entry in self.entries():
            module = entry.cls.__module__ if entry.cls else ""
            if module != "__main__" or self.kind in _BUILT_BY_EVERY_RANK:
                hashes[entry.name] = _hash([f"{module}\0{_source_hash(entry.cls)}"])
        return hashes

    def _check(self, name: str, cls: Any, where: str) -> None:
        if not re.fullmatch("[a-z0-9_]+", name):
            raise ValueError(f"{where}: the name may hold a-z, 0-9 and _ only, such as 'prefill_first'")
        module, _, base_name = self.base.partition(":")
        base = getattr(importlib.import_module(module), base_name)
        if not (inspect.isclass(cls) and issubclass(cls, base)):
            raise TypeError(f"{where}: a {self.kind} plugin must be a subclass of {module}.{base_name}")
        known = self._entries.get(name)
        if known and not _is_rerun(known.cls, cls):
            raise ValueError(f"{where}: the name is taken by {known.file}; choose another one")

    def _store(self, name: str, cls: type | None, parameters: list[Parameter], where: str) -> None:
        fields: list[tuple[str, Any, Any]] = [("name", str, dataclasses.field(default=name))]
        fields += [parameter.field() for parameter in parameters]
        title = f"{cls.__name__ if cls else name.title()}Config"
        try:
            node = OmegaConf.structured(dataclasses.make_dataclass(title, fields))
            for parameter in parameters:
                if parameter.is_mapping and parameter.default is not None and not parameter.required:
                    node[parameter.name]._set_flag("struct", False)  # its keys are values: any may be added
        except OmegaConfBaseException as error:  # a default that its own annotation refuses
            raise TypeError(f"{where}: {' '.join(str(error).split())}") from error
        ConfigStore.instance().store(group=self.kind, name=name, node=node, provider=where)


def _is_rerun(old: Any, new: Any) -> bool:
    """Whether `new` comes from running the notebook cell again that made `old`."""
    return old is not None and old.__module__ == new.__module__ == "__main__" and old.__qualname__ == new.__qualname__


def _file(cls: Any) -> str:
    module = sys.modules.get(getattr(cls, "__module__", ""))
    return getattr(module, "__file__", None) or "<interactive>"


def _source_hash(cls: type | None) -> str:
    module = sys.modules.get(cls.__module__) if cls else None
    file = getattr(module, "__file__", None)
    if file is None:
        return ""
    with open(file, "rb") as source:
        return hashlib.sha256(source.read()).hexdigest()


SCHEDULERS = Registry("scheduler", "framework.interfaces.scheduler:Scheduler")
EVICTIONS = Registry("eviction", "framework.interfaces.eviction:EvictionPolicy")
ATTENTIONS = Registry("attention", "framework.interfaces.attention:AttentionBackend", ("spec",))
SAMPLERS = Registry("sampler", "framework.interfaces.sampler:Sampler", ("vocab_size", "device"))
GRAPHS = Registry("graph", "framework.interfaces.graph:GraphStrategy")
COST_MODELS = Registry("cost_model", "framework.interfaces.cost_model:CostModel", ("deployment",))
ROUTERS = Registry("router", "framework.interfaces.router:Router")
PREDICTORS = Registry("predictor", "framework.interfaces.predictor:Predictor")
WORKLOADS = Registry("workload", "framework.interfaces.workload:Workload")
EXECUTORS = Registry("executor", "framework.execution.builder:EngineBuilder")
TRACKERS = Registry("tracker", "framework.records.tracking.base:Tracker")
FAMILIES = Registry("family", "framework.models.family:Family", is_chosen=False)

REGISTRIES = {
    r.kind: r
    for r in (
        *(SCHEDULERS, EVICTIONS, ATTENTIONS, SAMPLERS, GRAPHS, COST_MODELS, ROUTERS, PREDICTORS),
        *(WORKLOADS, EXECUTORS, TRACKERS, FAMILIES),
    )
}
CHOSEN = {kind: r for kind, r in REGISTRIES.items() if r.is_chosen}
"""The kinds that a configuration has a key for."""

ATTENTIONS.reserve("auto", "The fastest backend that supports this machine and model; the record says which.")
PREDICTORS.reserve("none", "No prediction: policies know nothing of output lengths, and nothing is computed.")
GRAPHS.reserve("auto", "The strategy that captures most of what runs here, eager on a CPU; the record says which.")


def fingerprint() -> str:
    """Hash over all registries, to compare between processes that must hold the same plugins."""
    return _hash(f"{r.kind}\0{r.fingerprint()}\n" for r in REGISTRIES.values())


def plugin_hashes() -> dict[str, dict[str, str]]:
    """Kind -> `Registry.plugin_hashes`, which say where two fingerprints differ."""
    return {kind: registry.plugin_hashes() for kind, registry in REGISTRIES.items()}


def differences(theirs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Which plugins this process and another one, whose `plugin_hashes` these are, do not have in common, in words."""
    found = []
    for kind, mine in plugin_hashes().items():
        other = theirs.get(kind, {})
        found += [f"{kind} '{name}' is missing" for name in other if name not in mine]
        found += [f"{kind} '{name}' is here only" for name in mine if name not in other]
        found += [f"{kind} '{name}' has other code" for name in mine if other.get(name, mine[name]) != mine[name]]
    return found


def modules() -> list[str]:
    """Modules that registered plugins come from."""
    classes = [entry.cls for registry in REGISTRIES.values() for entry in registry.entries()]
    return sorted({cls.__module__ for cls in classes if cls is not None and cls.__module__ != "__main__"})


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
