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
    """One device and the link to its neighbours. Rates are what programs reach, not what data sheets promise."""

    name: str
    device_name: str
    """The name that the driver gives to the device."""
    memory_gib: float
    """The memory that the driver offers to programs."""
    bytes_per_s: float
    """The bandwidth of device memory in a copy, counting bytes read plus bytes written."""
    flops_per_s: float
    """The rate of a large matrix product in a 16-bit type."""
    kernel_s: float
    """Time from the end of a small kernel to the end of the next one, when both are in a graph."""
    product_s: float
    """Time that a matrix product of more than a few rows takes in addition to its operations and bytes, to fill the
    matrix units."""
    launch_s: float
    """Host time to launch one kernel outside a graph."""
    graph_launch_s: float
    """Host time to replay a graph of a whole step."""
    capture_s: float
    """Time to capture one graph while requests wait."""
    link_bytes_per_s: float
    """The bandwidth to other devices of the host, in one direction."""
    link_latency_s: float
    """The time of one all-reduce of a few bytes."""
    source: str
    """Where the figures come from."""


@dataclass(slots=True, frozen=True, kw_only=True)
class ModelShape:
    """The dimensions of a decoder, before any split over devices."""

    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    num_experts: int = 0
    """Experts in each of `num_expert_layers` layers; 0 for a dense model"""
    experts_per_token: int = 0
    expert_size: int = 0
    """The features between the projections of one expert"""
    num_expert_layers: int = 0

    @property
    def layer_parameters(self) -> int:
        """The number of entries in the weight matrices of one layer, all experts included; the mean over the layers."""
        return self._layer_parameters(self.num_experts)

    @property
    def active_layer_parameters(self) -> int:
        """Those that one token is multiplied with."""
        return self._layer_parameters(self.experts_per_token)

    def _layer_parameters(self, num_experts: int) -> int:
        attention = 2 * (self.num_heads + self.num_kv_heads) * self.head_size
        dense = self.hidden_size * (attention + 3 * self.intermediate_size)
        if not self.num_expert_layers:
            return dense
        mixed = self.hidden_size * (attention + self.num_experts + 3 * num_experts * self.expert_size)
        num_dense = self.num_layers - self.num_expert_layers
        return (dense * num_dense + mixed * self.num_expert_layers) // self.num_layers

    @property
    def kv_values_per_token(self) -> int:
        """The number of values that the keys and values of one position take over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_size


ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1}
"""Bytes of one number, by torch's name of its type."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Deployment:
    """What is simulated: the device, the model, their types and the number of ranks."""

    hardware: Hardware
    model_name: str
    model: ModelShape
    dtype: str
    kv_dtype: str
    tp: int = 1

    @property
    def item_bytes(self) -> int:
        """Of one weight or activation."""
        return ITEM_BYTES[self.dtype]

    @property
    def kv_item_bytes(self) -> int:
        """Of one value in the KV cache."""
        return ITEM_BYTES[self.kv_dtype]


class StepShape(NamedTuple):
    """The work of a step, in numbers of tokens, rows and positions. Its cost may depend on nothing else.

    Construct it by keyword, since most of its fields are integers.
    """

    num_tokens: int
    """Tokens that the step computes, without padding."""
    num_rows: int
    """Requests in the step: decode rows and chunks of prompts."""
    num_decode_rows: int
    """Rows with one token each, which follow on tokens that are in the KV cache."""
    num_sampled: int
    """Rows that go through the LM head and the sampler."""
    decode_kv_tokens: int
    """Positions that all decode rows read. Each row also reads the position that it writes."""
    prefill_kv_tokens: int
    """Positions that all chunks read. A chunk reads its context and itself once."""
    prefill_pairs: int
    """Pairs of a query and a key position in all chunks, under the causal mask."""
    scope: GraphScope | None
    """The part of this step that a graph replays; None if the step runs eagerly."""
    padded_tokens: int
    """Tokens of the graph; `num_tokens` if the step runs eagerly."""
    padded_rows: int
    """Rows of the graph, sampled or not; `num_rows` if the step runs eagerly or if the graph has no rows."""
    captures: bool = False
    """Whether the graph has to be captured first."""
    new_rows: bool = False
    """Whether the rows differ from those of the step before, so that the host has more to prepare."""
    longest_chunk_kv: int = 0
    """Positions that the chunk with the longest context reads. Even a short chunk has to wait for a walk over all of
    its context."""

    @property
    def mixed_graph(self) -> bool:
        """Whether the step has prompt chunks and one graph replays all of it."""
        return self.scope is not None and self.scope is not GraphScope.PIECES and self.padded_tokens > self.padded_rows


class StepCost(NamedTuple):
    """The times of one step, in seconds. The device starts after `host_s`, or at the end of its last step if that is
    later."""

    device_s: float
    """Time that the device works."""
    host_s: float
    """Time that the host plans, submits and delivers before the device can start. The step before can hide it."""
    launch_s: float = 0.0
    """Time that the host goes on launching kernels while the device runs them. The step does not end before that."""


class CostModel(ABC):
    """Times steps for a simulated executor. One object serves one run.

    Plugins register with `@COST_MODELS.register("name")`. Their constructor takes the `deployment` by position and
    annotated parameters by keyword only. A model that does not know the deployment raises ValueError with a remedy
    when it is constructed.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> Sequence[Path]:
        """The files that the plugin reads in the cell `config`, apart from those that its parameters name. Their
        content is part of the identity of the cell. Any kind of plugin may have this method."""
        return ()

    @abstractmethod
    def cost(self, step: StepShape) -> StepCost:
        """The cost of one step. It is a function of `step` alone, it is finite, and more work costs no less. It is
        called once per step, so it has to be fast.

        Raises:
            ValueError: the model does not know this kind of graph (its scope, and whether it holds prompt chunks). The
                message names a remedy.
        """

    def effective(self) -> dict[str, object]:
        """What the record should say about the model, such as the source and the fit error of a profile."""
        return {}
