"""Sizes of a step that the configuration leaves open, and what a step takes, on a real device or a simulated one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from framework.interfaces.settings import EngineSettings
from framework.models.config import ModelConfig
from framework.records.metrics.utilization import ModelCosts
from framework.registry import ATTENTIONS

_CPU_ROWS, _CPU_TOKENS = 64, 2048
_GPU_ROWS, _GPU_TOKENS = 256, 16384
"""The sizes with which `nano_bench` is fastest on an H100 and an H200 (experiments/gpu_speed/)."""
_LEAST_ROWS, _LEAST_TOKENS = 8, 2048
_SHORT_CONTEXT_TOKENS = 256
"""The tokens that most requests come to. A cache that cannot hold this many for each row cannot use all rows."""
_ACTIVATION_SHARE = 8


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that the engine is built with, and the reasons for those that the configuration left open."""

    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    reasons: dict[str, str] = field(default_factory=dict)

    def effective(self) -> dict[str, int]:
        """The keys of `engine` that the sizes are values of, for the record."""
        return {
            "block_size": self.block_size,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The memory of a rank's device, and the share of it that the rank's part of the model takes."""

    memory_bytes: int | None
    """The memory of the whole device; None for a CPU, where it says nothing about speed."""
    item_bytes: int
    kv_item_bytes: int
    tp: int


def choose_step(engine: EngineSettings, config: ModelConfig, room: Room) -> tuple[int, int, dict[str, str]]:
    """Rows and tokens of the largest step, and the reasons for those that `engine` leaves open.

    On a GPU they begin with the sizes that are known to be fastest. Tokens are halved until the activations of a step
    take at most an eighth of the memory that the weights leave, and rows until short contexts of all rows fit there.
    """
    rows, tokens, reasons = engine.max_num_seqs, engine.max_num_batched_tokens, dict[str, str]()
    length = engine.max_model_len or config.max_model_len
    if rows is None:
        rows, reasons["max_num_seqs"] = _choose_rows(engine, config, room, min(length, _SHORT_CONTEXT_TOKENS))
        if tokens is not None and tokens < rows:
            rows, reasons["max_num_seqs"] = tokens, f"a step has no more tokens (max_num_batched_tokens={tokens})"
    if tokens is None:
        tokens, reasons["max_num_batched_tokens"] = _choose_tokens(engine, config, room, rows)
        if rows * length < tokens:
            tokens, reasons["max_num_batched_tokens"] = rows * length, f"{rows} rows of {length} tokens have no more"
    return rows, tokens, reasons


def _choose_rows(engine: EngineSettings, config: ModelConfig, room: Room, context_tokens: int) -> tuple[int, str]:
    if room.memory_bytes is None:
        return _CPU_ROWS, "enough to keep a CPU busy"
    usable, rows = _usable_bytes(engine, config, room, room.memory_bytes), _GPU_ROWS
    while rows > _LEAST_ROWS and rows * context_tokens * kv_token_bytes(config, room.kv_item_bytes, room.tp) > usable:
        rows //= 2
    return rows, _why(rows, _GPU_ROWS, f"whose contexts fit with {context_tokens} tokens each")


def _choose_tokens(engine: EngineSettings, config: ModelConfig, room: Room, rows: int) -> tuple[int, str]:
    if room.memory_bytes is None:
        return _CPU_TOKENS, "longer steps gain nothing on a CPU"
    usable, tokens = _usable_bytes(engine, config, room, room.memory_bytes), _GPU_TOKENS
    while tokens > _LEAST_TOKENS and (
        activation_bytes(config, tokens, rows, room.item_bytes, room.tp) * _ACTIVATION_SHARE > usable
    ):
        tokens //= 2
    return tokens, _why(tokens, _GPU_TOKENS, f"whose activations take 1/{_ACTIVATION_SHARE} of what the weights leave")


def _usable_bytes(engine: EngineSettings, config: ModelConfig, room: Room, memory_bytes: int) -> float:
    """For activations and KV cache."""
    return memory_bytes * engine.kv_memory_fraction - config.num_parameters * room.item_bytes / room.tp


def _why(chosen: int, fastest: int, limit: str) -> str:
    return "the fastest measured on a large GPU" if chosen == fastest else f"the most {limit}"


def preferred_block_size(choice: Mapping[Any, Any], device_type: str) -> tuple[int, str]:
    """The block size that attention backend `choice` (name and parameters) prefers on `cpu` or `cuda`, and why.

    A simulation cannot tell which backend `auto` stands for and gets 16.
    """
    parameters = {str(key): value for key, value in choice.items()}
    name = parameters.pop("name")
    if name == "auto":
        return 16, "no attention backend is named"
    return ATTENTIONS.get(name).preferred_block_size(device_type, parameters), f"attention={name} prefers it"


def activation_bytes(config: ModelConfig, num_tokens: int, num_rows: int, item_bytes: int, tp: int) -> int:
    """Memory of the largest step beside weights and cache, as the real engine finds it by a forward pass.

    At its fullest a layer holds the residual, its normed input, and the gate and up products with their own result;
    the head holds logits in the model's dtype.
    """
    features = max(config.intermediate_size, config.experts_per_token * config.expert_size)
    layer = 2 * config.hidden_size + 3 * features // tp
    return item_bytes * (num_tokens * layer + num_rows * config.vocab_size // tp)


def model_costs(config: ModelConfig, item_bytes: int, kv_item_bytes: int) -> ModelCosts:
    """What the steps of `config` cost, all of it or the share of one rank."""
    untied = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size  # looked up, not read
    return ModelCosts(
        # Of experts, those of one token: a step reads at least these, and how many more depends on the router.
        weight_bytes=(config.num_active_parameters - untied) * item_bytes,
        kv_bytes_per_token=config.kv_values_per_token * kv_item_bytes,
        flops_per_token=config.matmul_flops_per_token,
        attention_flops_per_token_pair=4 * config.num_layers * config.num_heads * config.head_size,
    )


def kv_token_bytes(config: ModelConfig, kv_item_bytes: int, tp: int) -> int:
    """Bytes of the keys and values of one token, over all layers, on one rank."""
    kv_heads_of_a_rank = max(1, config.num_kv_heads // tp)
    return config.kv_values_per_token * kv_heads_of_a_rank // config.num_kv_heads * kv_item_bytes
