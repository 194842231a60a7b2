"""The cost model: how long a step would take on a device that is not here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from framework.interfaces.graph import GraphScope


@dataclass(slots=True, frozen=True, kw_only=True)
class Hardware:
    """One device, and the link to its neighbours. Rates are what programs reach, not what data sheets promise."""

    name: str
    device_name: str
    """As the driver calls it."""
    memory_gib: float
    """What the driver offers to programs."""
    bytes_per_s: float
    """Of device memory, by a copy: read plus written."""
    flops_per_s: float
    """Of a large matrix product in a half type."""
    kernel_s: float
    """From the end of a small kernel to the end of the next one, when both are in a graph."""
    product_s: float
    """What a matrix product of more than a few rows takes beside its operations and bytes: filling the matrix units."""
    launch_s: float
    """Host time to launch one kernel outside a graph."""
    graph_launch_s: float
    """Host time to replay a graph of a whole step."""
    capture_s: float
    """Time to capture one graph while requests wait."""
    link_bytes_per_s: float
    """To other devices of the host, in one direction."""
    link_latency_s: float
    """Of one all-reduce of a few bytes."""
    source: str
    """Where the figures come from."""


@dataclass(slots=True, frozen=True, kw_only=True)
class ModelShape:
    """The dimensions of a dense decoder, before any split over devices."""

    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int

    @property
    def layer_parameters(self) -> int:
        """Entries of the weight matrices of one layer."""
        attention = 2 * (self.num_heads + self.num_kv_heads) * self.head_size
        return self.hidden_size * (attention + 3 * self.intermediate_size)

    @property
    def kv_values_per_token(self) -> int:
        """Keys and values of one position over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_size


_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1}


@dataclass(slots=True, frozen=True, kw_only=True)
class Deployment:
    """What is simulated."""

    hardware: Hardware
    model_name: str
    model: ModelShape
    dtype: str
    kv_dtype: str
    tp: int = 1

    @property
    def item_bytes(self) -> int:
        """Of one weight or activation."""
        return _ITEM_BYTES[self.dtype]

    @property
    def kv_item_bytes(self) -> int:
        """Of one value in the KV cache."""
        return _ITEM_BYTES[self.kv_dtype]


class StepShape(NamedTuple):
    """What a step has to do, all that its cost may depend on."""

    num_tokens: int
    num_rows: int
    num_decode_rows: int
    num_sampled: int
    """Rows that go through the LM head and the sampler."""
    decode_kv_tokens: int
    """Positions that decode rows read, each its own included."""
    prefill_kv_tokens: int
    """Positions that chunks read: for each its context and itself, once."""
    prefill_pairs: int
    """Query and key positions that chunks bring together, causal."""
    scope: GraphScope | None
    """What a graph replays of this step; None for eager."""
    padded_tokens: int
    """Tokens of the graph; `num_tokens` when eager."""
    padded_rows: int
    """Rows of the graph, sampled or not; `num_rows` when eager or when the graph has no rows."""
    captures: bool = False
    """Whether the graph is captured first."""
    new_rows: bool = False
    """Whether its rows are not those of the step before: the host has more to prepare."""
    longest_chunk_kv: int = 0
    """Positions that the chunk with most of them reads: few tokens after a long context wait for a walk over it."""

    @property
    def mixed_graph(self) -> bool:
        """Whether one graph replays all of a step with prompt chunks."""
        return self.scope is not None and self.scope is not GraphScope.PIECES and self.padded_tokens > self.padded_rows


class StepCost(NamedTuple):
    """Seconds. The device starts after `host_s`, or when its last step ends if that is later."""

    device_s: float
    """The device's own work."""
    host_s: float
    """Of planning, submitting and delivering, before the device can start: hidden behind the step before, if any."""
    launch_s: float = 0.0
    """How long the host goes on launching kernels while the device runs them; the step ends no earlier."""


class CostModel(ABC):
    """Times steps for a simulated executor. One object serves one run.

    Plugins register with `@COST_MODELS.register("name")`, take the `deployment` by position, and keyword-only,
    annotated parameters. A model that cannot know the deployment raises ValueError with a remedy when it is built.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> Sequence[Path]:
        """Files that it reads in the cell `config` beside those that its parameters name: their content is part of what
        the cell is. Any kind of plugin may have this method."""
        return ()

    @abstractmethod
    def cost(self, step: StepShape) -> StepCost:
        """The cost of one step: a function of `step` alone, finite, no less for more work. It is asked once a step, so
        be quick.

        Raises:
            ValueError: for a kind of graph (scope, with prompt chunks or without) that it does not know; with a remedy.
        """

    def effective(self) -> dict[str, object]:
        """What the record should say about it: a profile's source and fit error, say."""
        return {}
