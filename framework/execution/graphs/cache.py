"""Captured CUDA graphs: one shared memory pool, captured at start or at first use, replayed with static buffers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import torch

from framework.execution.device.memory import explain_out_of_memory
from framework.interfaces.graph import GraphKey

Body = Callable[[], Any]
G = TypeVar("G")


class Graph(Protocol):
    """Something captured."""

    def replay(self) -> Any:
        """Launch it and return what the captured function returned, in the same memory every time."""


class CapturedGraph:
    """One CUDA graph of `body`."""

    def __init__(self, body: Body, pool: Any) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = body()

    def replay(self) -> Any:
        self._graph.replay()
        return self._outputs


class GraphCache(Generic[G]):
    """What was captured, by key; with `max_graphs`, the one not replayed for longest makes room.

    Args:
        capture: builds the graph of a key in a memory pool.
    """

    def __init__(
        self, device: torch.device, capture: Callable[[GraphKey, Any], G], max_graphs: int | None = None
    ) -> None:
        self._device, self._max_graphs = device, max_graphs
        self._capture: Callable[[GraphKey, Any], G] | None = capture
        self._pool: Any = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._graphs: OrderedDict[GraphKey, G] = OrderedDict()
        self.capture_s = 0.0
        self.memory_bytes = 0
        self.num_captured = 0

    def __contains__(self, key: GraphKey) -> bool:
        return key in self._graphs

    def get(self, key: GraphKey) -> G:
        """The graph of `key`. It is captured now if it is not there.

        Raises:
            ValueError: out of memory while capturing.
        """
        graph = self._graphs.get(key)
        if graph is not None:
            self._graphs.move_to_end(key)
            return graph
        assert self._capture is not None, "a step after the end of the graphs"
        if self._max_graphs is not None and len(self._graphs) >= self._max_graphs:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # it may still be running
            self._graphs.popitem(last=False)
        started, before = time.perf_counter(), self._free_bytes()
        with explain_out_of_memory(
            f"capturing the graph of {key.num_tokens} tokens", "engine.kv_memory_fraction, or choose graph=eager"
        ):
            graph = self._graphs[key] = self._capture(key, self._pool)
        self.capture_s += time.perf_counter() - started
        self.memory_bytes += max(0, before - self._free_bytes())
        self.num_captured += 1
        return graph

    def close(self) -> None:
        """Destroy every graph. NCCL ends a communicator only once no graph holds its sums.

        The function that captures is forgotten too: it refers to what holds this cache, and the memory of the graphs
        must not wait for a garbage collection.
        """
        self._graphs.clear()
        self._capture = None

    def effective(self) -> dict[str, object]:
        """What the record says of the graphs."""
        return {
            "graphs_captured": self.num_captured,
            "graph_capture_s": round(self.capture_s, 3),
            "graph_memory_gib": round(self.memory_bytes / 2**30, 3),
        }

    def _free_bytes(self) -> int:
        return torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else 0
