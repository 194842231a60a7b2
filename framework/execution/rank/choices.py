"""Resolves a configuration for this machine: device, types and plugins of one rank, before any weight is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from framework.config.settings import Settings
from framework.config.typed import with_sizes
from framework.execution.device.device import resolve_device, torch_dtype
from framework.execution.device.dtype import choose_dtype, choose_kv_dtype
from framework.execution.device.sizes import Room, Sizes, choose_step, preferred_block_size
from framework.execution.graphs.choose_graph import choose_graph
from framework.execution.graphs.setup_graphs import check_graphs
from framework.execution.kernels.cuda.applies import unfused_reason
from framework.execution.rank.choose_attention import choose_attention
from framework.interfaces.attention import AttentionBackend, AttentionSpec
from framework.interfaces.errors import IncompatibleError
from framework.interfaces.graph import GraphStrategy
from framework.interfaces.sampler import Sampler
from framework.interfaces.settings import EngineSettings, LocalSettings
from framework.models.config import ModelConfig
from framework.models.loading.load import load_config
from framework.models.loading.read_config import weights_dtype
from framework.models.split import check_split, config_of_rank
from framework.registry import EXECUTORS, SAMPLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Everything that a rank is built from. It is equal on every rank except for the index of the device."""

    cfg: Settings
    """The configuration with every size filled in."""
    engine: EngineSettings
    """The section `engine` as it was asked for."""
    executor: LocalSettings
    sizes: Sizes
    config: ModelConfig
    device: torch.device
    dtype: torch.dtype
    dtype_reason: str
    kv_dtype: torch.dtype
    max_model_len: int
    spec: AttentionSpec
    """The attention problem of one rank, which has a share of the heads."""
    attention: AttentionBackend
    attention_name: str
    attention_passed_over: dict[str, str]
    sampler: Sampler
    strategy: GraphStrategy
    graph_name: str
    kernels: str
    """The kernels that run the layers on a GPU: `fused` or `torch`."""


def choose(cfg: Settings) -> Choices:
    """Resolve every `auto`, build the plugins that a rank runs, and check that they work together.

    Raises:
        IncompatibleError: if plugins, model and machine cannot work together.
        ValueError: for values and files that are wrong in themselves.
    """
    executor: LocalSettings = EXECUTORS.build(cfg.executor)
    device = resolve_device(executor.device)
    engine = cfg.engine
    config = load_config(cfg.model, max_model_len=engine.max_model_len)
    check_split(config, executor.tp)
    if config.experts is not None and device.type != "cpu":
        raise IncompatibleError(
            f"this {config.architecture} has {config.experts.number} experts, which run in plain PyTorch on a CPU only "
            f"so far; set executor.device=cpu, or executor=simulated for the time on {device}"
        )
    _check_ranks(executor, cfg.graph.name, device)
    dtype_name, dtype_reason = choose_dtype(executor.dtype, device.type, weights_dtype(cfg.model, config))
    dtype = torch_dtype(dtype_name)
    kv_dtype = torch_dtype(choose_kv_dtype(executor.kv_dtype, dtype_name))
    room = Room(
        memory_bytes=torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None,
        item_bytes=dtype.itemsize,
        kv_item_bytes=kv_dtype.itemsize,
        tp=executor.tp,
    )
    rows, tokens, reasons = choose_step(engine, config, room)
    max_model_len = engine.max_model_len or config.max_model_len
    shard = config_of_rank(config, executor.tp)
    spec = AttentionSpec(
        device=device,
        dtype=dtype,
        kv_dtype=kv_dtype,
        num_heads=shard.num_heads,
        num_kv_heads=shard.num_kv_heads,
        head_size=config.head_size,
        block_size=0,  # that of the backend, below
        num_layers=config.num_layers,
        scale=config.attention_scale,
        max_num_seqs=rows,
        max_num_batched_tokens=tokens,
        max_model_len=max_model_len,
        windows=config.windows_within(max_model_len),
        softcap=config.attention_softcap,
    )
    attention, attention_name, passed_over = choose_attention(cfg.attention, spec, engine.block_size)
    if engine.block_size is None:
        choice = {"name": attention_name} if cfg.attention.name == "auto" else cfg.attention
        reasons["block_size"] = preferred_block_size(choice, device.type)[1]
    if spec.windows:
        reasons["windows"] = "layers with a window attend to it alone, and keep keys and values of whole contexts"
    sizes = Sizes(rows, tokens, attention.spec.block_size, reasons)
    sampler = SAMPLERS.build(cfg.sampler, config.vocab_size, device)
    strategy, graph_name = choose_graph(cfg, attention, sampler, device.type)
    kernels = _choose_kernels(executor.kernels, cfg.compile.level, attention, attention_name, device, config)
    check_graphs(strategy, graph_name, attention, sampler, kernels, device)
    return Choices(
        cfg=with_sizes(cfg, sizes.effective()),
        engine=engine,
        executor=executor,
        sizes=sizes,
        config=config,
        device=device,
        dtype=dtype,
        dtype_reason=dtype_reason,
        kv_dtype=kv_dtype,
        max_model_len=max_model_len,
        spec=attention.spec,
        attention=attention,
        attention_name=attention_name,
        attention_passed_over=passed_over,
        sampler=sampler,
        strategy=strategy,
        graph_name=graph_name,
        kernels=kernels,
    )


def _check_ranks(executor: LocalSettings, graph: str, device: torch.device) -> None:
    tp, allreduce = executor.tp, executor.allreduce
    if device.type == "cpu":
        if allreduce not in ("auto", "gloo"):
            raise IncompatibleError(
                f"executor.allreduce={allreduce}: it sums over GPUs, and this runs on {device}; set "
                f"executor.allreduce=auto"
            )
        return
    if tp > 1 and allreduce == "gloo" and graph not in ("eager", "auto"):
        raise IncompatibleError(f"executor.allreduce=gloo: it cannot be captured by graph={graph}; choose graph=eager")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", tp))
    if allreduce != "gloo" and here > torch.cuda.device_count():
        raise IncompatibleError(
            f"executor.tp={tp}: {here} ranks of this host need a GPU each, and torch sees {torch.cuda.device_count()}; "
            f"lower executor.tp, or let ranks share one with executor.allreduce=gloo graph=eager (slow)"
        )


def _choose_kernels(
    wanted: str, level: str, attention: AttentionBackend, name: str, device: torch.device, config: ModelConfig
) -> str:
    if device.type == "cpu":
        if wanted == "fused":
            raise IncompatibleError("executor.kernels=fused: these are for CUDA GPUs; set executor.kernels=auto")
        if level != "off":
            raise IncompatibleError(
                f"compile.level={level}: a CPU has kernels of its own, only a GPU's layers are compiled; "
                f"set compile.level=off"
            )
        return "torch"
    if wanted == "fused" and not attention.separate_write:
        raise IncompatibleError(
            f"executor.kernels=fused: attention={name} writes the cache itself; choose attention=triton or flash, or "
            f"executor.kernels=torch"
        )
    reason = unfused_reason(config)
    if wanted == "fused" and reason is not None:
        raise IncompatibleError(f"executor.kernels=fused: {reason}; set executor.kernels=torch")
    if wanted == "auto":
        return "fused" if attention.separate_write and level == "off" and reason is None else "torch"
    return wanted
