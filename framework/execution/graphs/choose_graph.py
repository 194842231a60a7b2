"""Which graph strategy runs: the one asked for, or for `auto` the one that captures most of what runs here."""

from __future__ import annotations

from framework.config.settings import Settings
from framework.interfaces.attention import AttentionBackend, GraphSupport
from framework.interfaces.graph import GraphStrategy
from framework.interfaces.sampler import Sampler
from framework.registry import GRAPHS


def choose_graph(
    cfg: Settings, attention: AttentionBackend, sampler: Sampler, device_type: str
) -> tuple[GraphStrategy, str]:
    """The strategy of a real device, and its name."""
    name = cfg.graph.name
    if name == "auto":
        name = _most(cfg, attention.graph_support, sampler.graph_safe) if device_type == "cuda" else "eager"
    return strategy_of(cfg, name), name


def simulated_graph(cfg: Settings) -> str:
    """The name of the strategy in simulation, which knows neither samplers nor attention backends."""
    if cfg.graph.name != "auto":
        return str(cfg.graph.name)
    return "eager" if cfg.executor.hardware == "cpu" else "mixed"


def strategy_of(cfg: Settings, name: str) -> GraphStrategy:
    """A new strategy like the one that was chosen under `name`."""
    choice = {"name": name} if cfg.graph.name == "auto" else cfg.graph
    strategy: GraphStrategy = GRAPHS.build(choice)
    return strategy


def _most(cfg: Settings, support: GraphSupport, graph_safe: bool) -> str:
    if cfg.compile.mode == "reduce-overhead":  # captures graphs of its own
        return "eager"
    if cfg.executor.tp > 1 and cfg.executor.allreduce == "gloo":  # cannot be captured
        return "eager"
    if support < GraphSupport.DECODE:
        return "piecewise"
    if not graph_safe:
        return "bucketed"
    return "mixed" if support >= GraphSupport.MIXED else "full"
