"""The sections of a checked configuration as types. The command line sets each field as `section.field=value`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class EngineSettings:
    """Limits of the step loop."""

    max_num_seqs: int | None = None
    """The largest number of requests that run at once. null lets the engine choose for the device (at most 256 on a
    GPU, 64 on a CPU)."""
    max_num_batched_tokens: int | None = None
    """The largest number of tokens per step. null lets the engine choose for the device (at most 16,384 on a GPU,
    2,048 on a CPU)."""
    max_model_len: int | None = None
    """The largest number of prompt and output tokens of one request. null takes what the model allows."""
    block_size: int | None = None
    """Token positions per KV block. null takes the size that the attention backend prefers, or 16 in a simulation that
    names no backend."""
    num_blocks: int | None = None
    """The number of KV blocks. null takes as many as fit into memory."""
    kv_memory_fraction: float = 0.9
    """The share of the device's memory that weights, activations and the KV cache may use together."""
    prefix_caching: bool = True
    """Whether requests share the KV blocks of equal prompt prefixes."""
    overlap: int = 1
    """How many further steps are submitted before the oldest one is collected: 0 or 1."""
    seed: int = 0
    """The seed of sampling noise for requests without a seed of their own. Unless it is set, it is that of the cell."""

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
    """The keys of `executor=local`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU if there is one, and the CPU otherwise."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of weights and activations. auto is float32 on a CPU. On a GPU, auto is bfloat16 for weights that are
    bfloat16, and float16 for all others (GGUF files, float32 and float16 checkpoints)."""
    kv_dtype: Literal["auto", "float32", "bfloat16", "float16", "fp8"] = "auto"
    """The type of the KV cache. auto is the same as `dtype`. fp8 is e4m3, which takes half of the bytes of bfloat16.
    The record gives its error as kv_error."""
    kernels: Literal["auto", "torch", "fused"] = "auto"
    """The kernels of a GPU's layers. torch uses PyTorch's, which compile.level may compile. fused uses ServeLab's own
    Triton kernels. auto is fused if nothing is to be compiled and the attention backend allows it, else torch."""
    tp: int = 1
    """The number of tensor-parallel ranks. They are processes of this host, or all processes that torchrun started."""
    allreduce: Literal["auto", "nccl", "symm_mem", "gloo"] = "auto"
    """How GPU ranks add up their results. symm_mem is PyTorch's symmetric memory, with nccl for large messages. gloo
    goes through the host, for ranks that share a GPU; it is slow and needs graph=eager. auto is symm_mem where that
    works, and nccl otherwise. CPU ranks use gloo."""
    heartbeat_s: float = 5.0
    """The cell fails if a rank is silent for this long, or if the other ranks wait for it for this long."""
    startup_limit_s: float = 600.0
    """The time limit for each phase of the start of several ranks, such as loading weights or capturing graphs. The
    cell fails if a rank takes longer."""
    threads: int | None = None
    """The number of CPU threads per rank. null takes torch's default; with tp > 1 the ranks share the cores."""

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
    """The keys of `executor=simulated`."""

    hardware: str = "h200"
    """The device to simulate. framework/simulation/hardware.py lists the choices."""
    memory_gib: float | None = None
    """The memory of the device in GiB, to ask what a larger or smaller memory would do. null takes the memory of
    `hardware`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of weights and activations. auto chooses as a real device of that kind does."""
    kv_dtype: Literal["auto", "float32", "bfloat16", "float16", "fp8"] = "auto"
    """The type of the KV cache. auto is the same as `dtype`. fp8 is e4m3, which takes half of the bytes of bfloat16."""
    tp: int = 1
    """The number of tensor-parallel ranks."""
    replicas: int = 1
    """The number of engines that share the workload. Each has its own policies and KV cache; `router` picks one for
    each request at its arrival."""
    router_staleness_s: float = 0.0
    """How old the replicas' reports to the router may be; 0: as of the last step that has ended."""
    verify: bool = False
    """Check every position that a step reads against a shadow of the KV memory. This is slow and meant for tests of
    policies."""

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
