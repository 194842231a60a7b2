"""The sections of a checked configuration as types. The command line sets each field as `section.field=value`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class EngineSettings:
    """Limits of the step loop."""

    max_num_seqs: int | None = None
    """Requests that run at once; null: chosen for the device (at most 256 on a GPU, 64 on a CPU)."""
    max_num_batched_tokens: int | None = None
    """Tokens of one step; null: chosen for the device (at most 16,384 on a GPU, 2,048 on a CPU)."""
    max_model_len: int | None = None
    """Prompt and output tokens of one request; null: what the model allows."""
    block_size: int | None = None
    """Token positions of one KV block; null: what the attention backend prefers, 16 in a simulation that names none."""
    num_blocks: int | None = None
    """KV blocks; null: what fits into memory."""
    kv_memory_fraction: float = 0.9
    """Share of the device's memory for weights, activations and KV cache together."""
    prefix_caching: bool = True
    overlap: int = 1
    """Steps submitted before the oldest is collected: 0 or 1."""
    seed: int = 0
    """Of sampling noise, for requests without a seed of their own; that of the cell unless it is set."""

    def __post_init__(self) -> None:
        size, length, share = self.block_size, self.max_model_len, self.kv_memory_fraction
        power = size is None or (size >= 1 and size & (size - 1) == 0)
        prefers = "null for what the attention backend prefers"
        require(power, "engine.block_size", size, "must be a power of two", prefers)
        at_least_1(self.max_num_seqs, "engine.max_num_seqs", "null for what suits the device")
        at_least_1(self.max_num_batched_tokens, "engine.max_num_batched_tokens", "null for what suits the device")
        fits = length is None or length >= 2
        require(fits, "engine.max_model_len", length, "must be at least 2", "null for the model's")
        at_least_1(self.num_blocks, "engine.num_blocks", "null for what fits")
        require(0 < share <= 1, "engine.kv_memory_fraction", share, "must be in (0, 1]", "0.9")
        require(self.overlap in (0, 1), "engine.overlap", self.overlap, "must be 0 or 1", "1")


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """What `executor=local` takes."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and activations. auto: float32 on a CPU; on a GPU bfloat16 for weights that are bfloat16, float16 for
    others (GGUF files, float32 and float16 checkpoints)."""
    kv_dtype: Literal["auto", "float32", "bfloat16", "float16", "fp8"] = "auto"
    """Of the KV cache. auto: as dtype; fp8: e4m3, half of bfloat16's bytes; the record has its error as kv_error."""
    kernels: Literal["auto", "torch", "fused"] = "auto"
    """Of a GPU's layers. torch: PyTorch's, which compile.level may compile; fused: our own in Triton; auto: fused where
    nothing is to be compiled and the attention backend allows it."""
    tp: int = 1
    """Tensor-parallel ranks: processes of this host, or all of torchrun's."""
    allreduce: Literal["auto", "nccl", "symm_mem", "gloo"] = "auto"
    """Of a GPU's ranks. symm_mem: PyTorch's symmetric memory, nccl for large messages; gloo: through the host, where
    ranks share a GPU (slow, graph=eager only); auto: symm_mem where it works, else nccl. A CPU's ranks use gloo."""
    heartbeat_s: float = 5.0
    """A rank that others wait for, or that is silent, for this long ends the cell as failed."""
    startup_limit_s: float = 600.0
    """For each phase of the start of several ranks, such as loading weights or capturing graphs: a rank that takes
    longer ends the cell as failed."""
    threads: int | None = None
    """CPU threads of the model, of each rank; null: torch's default, with tp > 1 the cores shared among the ranks."""

    def __post_init__(self) -> None:
        at_least_1(self.threads, "executor.threads", "null for torch's default")
        at_least_1(self.tp, "executor.tp", "1 for a single rank")
        for name, seconds, remedy in (
            ("heartbeat_s", self.heartbeat_s, "5"),
            ("startup_limit_s", self.startup_limit_s, "600"),
        ):
            require(0 < seconds < float("inf"), f"executor.{name}", seconds, "must be above 0, and finite", remedy)


@dataclass(frozen=True, kw_only=True)
class SimulatedSettings:
    """What `executor=simulated` takes."""

    hardware: str = "h200"
    """The device that is simulated: framework/simulation/hardware.py lists them."""
    memory_gib: float | None = None
    """Memory of the device, to ask what a larger or smaller one would do; null: that of `hardware`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and activations; auto: as a real device of that kind has it."""
    kv_dtype: Literal["auto", "float32", "bfloat16", "float16", "fp8"] = "auto"
    """Of the KV cache. auto: as dtype; fp8: e4m3, half of bfloat16's bytes."""
    tp: int = 1
    """Tensor-parallel ranks."""
    replicas: int = 1
    """Engines that share the workload, each with policies and a KV cache of its own; `router` picks one at arrival."""
    router_staleness_s: float = 0.0
    """How old the replicas' reports to the router may be; 0: as of the last step that has ended."""
    verify: bool = False
    """Check every position that a step reads against a shadow of the KV memory: slow, for tests of policies."""

    def __post_init__(self) -> None:
        at_least_1(self.tp, "executor.tp", "1 for a single rank")
        fits = self.memory_gib is None or 0 < self.memory_gib < float("inf")
        require(fits, "executor.memory_gib", self.memory_gib, "must be above 0", "null for that of executor.hardware")
        at_least_1(self.replicas, "executor.replicas", "1 for one engine")
        fits = 0 <= self.router_staleness_s < float("inf")
        key, limit = "executor.router_staleness_s", "must be at least 0, and finite"
        require(fits, key, self.router_staleness_s, limit, "0 for fresh reports")


def require(holds: bool, key: str, value: object, limit: str, remedy: str) -> None:
    """Refuse `value` of the configuration key `key` unless the condition `holds`.

    Raises:
        ValueError: naming key, value, limit and remedy.
    """
    if not holds:
        raise ValueError(f"{key}={value}: {limit}" + (f"; use {remedy}" if remedy else ""))


def at_least_1(value: int | None, key: str, remedy: str) -> None:
    """Refuse a number below 1; None is fine.

    Raises:
        ValueError: as `require`.
    """
    require(value is None or value >= 1, key, value, "must be at least 1", remedy)
