"""From a checked configuration to an engine that is ready to run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

import torch
from omegaconf import DictConfig

from framework.analysis.block_cache import NeedsFuture
from framework.engine.engine import Engine
from framework.engine.intake import Intake
from framework.errors import IncompatibleError
from framework.execution.choose_attention import choose_attention
from framework.execution.compiled import compile_model
from framework.execution.device import resolve_device, resolve_dtype
from framework.execution.device_state import DeviceState
from framework.execution.device_thread import DeviceThread
from framework.execution.kv_error import kv_error
from framework.execution.local import LocalExecutor
from framework.execution.memory import explain_out_of_memory, kv_block_bytes, num_kv_blocks
from framework.execution.network import FusedNetwork, ModuleNetwork, Network
from framework.execution.peaks import measure_peaks
from framework.execution.profile import activation_bytes
from framework.execution.runner import Runner
from framework.execution.setup_graphs import build_graphs, check_graphs
from framework.interfaces.attention import AttentionBackend, AttentionSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.kernels.cpu.optimize import optimize_for_cpu
from framework.loading.load import LoadedModel, load_config, load_model
from framework.loading.tokenizer import Tokenizer
from framework.metrics.utilization import DevicePeaks, ModelCosts
from framework.models.config import ModelConfig
from framework.registry import EVICTIONS, GRAPHS, SAMPLERS, SCHEDULERS

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class BuiltEngine:
    """An engine, and what was found out while building it."""

    engine: Engine
    tokenizer: Tokenizer | None
    model_config: ModelConfig
    eos_token_ids: tuple[int, ...]
    max_model_len: int
    effective: dict[str, object]
    """What was chosen where the configuration left it open."""
    costs: ModelCosts
    peaks: DevicePeaks | None
    """None on a CPU, whose utilisation is not reported"""
    startup_s: float
    """From here to the end of warm-up, imports excluded."""


def build_engine(cfg: DictConfig) -> BuiltEngine:
    """Check that everything works together, load the model, size the cache, warm up.

    Raises:
        IncompatibleError: before any weight is loaded, if plugins, model and machine cannot work together.
        ValueError: for values and files that are wrong in themselves.
    """
    device = resolve_device(cfg.executor.device)
    # A GPU needs no thread: its steps are enqueued and run by themselves.
    thread = DeviceThread(cfg.executor.threads) if device.type == "cpu" else None
    try:
        return _build(cfg, device, thread)
    except BaseException:
        if thread is not None:
            thread.close()
        raise


def _build(cfg: DictConfig, device: torch.device, thread: DeviceThread | None) -> BuiltEngine:
    started = time.perf_counter()
    on_device = thread.run if thread is not None else _call
    if cfg.executor.tp != 1:
        raise IncompatibleError(f"executor.tp={cfg.executor.tp}: executor=local runs one rank; set executor.tp=1")
    config = load_config(cfg.model, max_model_len=cfg.engine.max_model_len)
    dtype = resolve_dtype(cfg.executor.dtype, device, config.dtype)
    kv_dtype = dtype if cfg.executor.kv_dtype == "auto" else resolve_dtype(cfg.executor.kv_dtype, device, None)
    max_model_len = cfg.engine.max_model_len or config.max_model_len
    spec = AttentionSpec(
        device=device,
        dtype=dtype,
        kv_dtype=kv_dtype,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_size=config.head_size,
        block_size=cfg.engine.block_size,
        num_layers=config.num_layers,
        scale=config.head_size**-0.5,
        max_num_seqs=cfg.engine.max_num_seqs,
        max_num_batched_tokens=cfg.engine.max_num_batched_tokens,
        max_model_len=max_model_len,
    )
    attention, attention_name, passed_over = choose_attention(cfg.attention, spec)
    scheduler = SCHEDULERS.build(cfg.scheduler)
    eviction = EVICTIONS.build(cfg.eviction)
    if isinstance(eviction, NeedsFuture):
        raise IncompatibleError(
            f"eviction={cfg.eviction.name} needs to know the future, which an engine does not; replay the workload "
            f"with framework.analysis.block_cache, or choose another policy"
        )
    sampler = SAMPLERS.build(cfg.sampler, config.vocab_size, device)
    peaks = measure_peaks(device, dtype)  # before weights and cache take the memory
    strategy = GRAPHS.build(cfg.graph)
    kernels_name = _choose_kernels(cfg, attention, attention_name, device)
    check_graphs(strategy, cfg.graph.name, attention, sampler, kernels_name, device)
    with explain_out_of_memory("loading the weights", "the model's size or executor.dtype"):
        loaded = on_device(load_model, cfg.model, device=device, dtype=dtype, max_model_len=max_model_len)
    kernels = on_device(optimize_for_cpu, loaded.model) if device.type == "cpu" else {"layers": kernels_name}
    kernels |= compile_model(loaded.model, cfg.compile.level, cfg.compile.mode)
    network = _network(loaded, attention, kernels_name, 1)
    reserved = activation_bytes(
        network, num_tokens=spec.max_num_batched_tokens, num_rows=spec.max_num_seqs, device=device
    )
    num_blocks = num_kv_blocks(cfg.engine, device, kv_block_bytes(spec), max_model_len, reserved)
    max_model_len = _fit_length(cfg, num_blocks, max_model_len)
    state = DeviceState(
        num_slots=spec.max_num_seqs, max_model_len=max_model_len, block_size=spec.block_size, device=device
    )
    with explain_out_of_memory("allocating the KV cache", "engine.kv_memory_fraction or engine.num_blocks"):
        network = _network(loaded, attention, kernels_name, num_blocks)
    graphs = build_graphs(strategy, network, attention, sampler, state, spec)
    runner = Runner(network, attention, sampler, state, graphs, strategy)
    executor = LocalExecutor(runner, thread, num_blocks=num_blocks)
    start_engine = partial(
        Engine,
        executor=executor,
        intake=_intake(cfg, loaded, max_model_len, type(sampler).unsupported_reason),
        block_size=spec.block_size,
        max_num_seqs=spec.max_num_seqs,
        max_num_batched_tokens=spec.max_num_batched_tokens,
        overlap=cfg.engine.overlap,
        prefix_caching=cfg.engine.prefix_caching,
    )
    _warm_up(start_engine(scheduler, eviction))
    engine = start_engine(SCHEDULERS.build(cfg.scheduler), EVICTIONS.build(cfg.eviction))  # without a memory of warm-up
    effective: dict[str, object] = {
        "attention": attention_name,
        "attention_passed_over": passed_over,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "kv_dtype": str(kv_dtype).removeprefix("torch."),
        "threads": on_device(torch.get_num_threads),
        "num_blocks": num_blocks,
        "max_model_len": max_model_len,
        "model_source": loaded.source,
        "load_s": round(loaded.load_s, 3),
        "kernels": kernels,
        "activation_gib": round(reserved / 2**30, 3),
        **executor.effective(),
    }
    if kv_dtype != dtype:
        effective["kv_error"] = on_device(kv_error, loaded.model, attention, network.kv_caches)
    return BuiltEngine(
        engine=engine,
        tokenizer=loaded.tokenizer,
        model_config=config,
        eos_token_ids=loaded.eos_token_ids,
        max_model_len=max_model_len,
        effective=effective,
        costs=_costs(config, dtype, kv_dtype),
        peaks=peaks,
        startup_s=time.perf_counter() - started,
    )


def _call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return function(*args, **kwargs)


def _intake(cfg: DictConfig, loaded: LoadedModel, max_model_len: int, refuses: Any) -> Intake:
    return Intake(
        vocab_size=loaded.config.vocab_size,
        max_model_len=max_model_len,
        seed=cfg.engine.seed,
        eos_token_ids=loaded.eos_token_ids,
        tokenizer=loaded.tokenizer,
        refuses=refuses,
    )


def _costs(config: ModelConfig, dtype: torch.dtype, kv_dtype: torch.dtype) -> ModelCosts:
    untied = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size  # looked up, not read
    return ModelCosts(
        weight_bytes=(config.num_parameters - untied) * dtype.itemsize,
        kv_bytes_per_token=config.kv_bytes_per_token(kv_dtype),
        flops_per_token=config.matmul_flops_per_token,
        attention_flops_per_token_pair=4 * config.num_layers * config.num_heads * config.head_size,
    )


def _choose_kernels(cfg: DictConfig, attention: AttentionBackend, name: str, device: torch.device) -> str:
    """`fused` or `torch`: whose kernels run the layers on a GPU."""
    wanted = cfg.executor.kernels
    if device.type == "cpu":
        if wanted == "fused":
            raise IncompatibleError("executor.kernels=fused: these are for CUDA GPUs; set executor.kernels=auto")
        if cfg.compile.level != "off":
            raise IncompatibleError(
                f"compile.level={cfg.compile.level}: a CPU has kernels of its own, only a GPU's layers are compiled; "
                f"set compile.level=off"
            )
        return "torch"
    if wanted == "fused" and not attention.separate_write:
        raise IncompatibleError(
            f"executor.kernels=fused: attention={name} writes the cache itself; choose attention=triton or flash, or "
            f"executor.kernels=torch"
        )
    if wanted == "auto":
        return "fused" if attention.separate_write and cfg.compile.level == "off" else "torch"
    return str(wanted)


def _network(loaded: LoadedModel, attention: AttentionBackend, kernels: str, num_blocks: int) -> Network:
    """The model with a KV cache of `num_blocks` blocks a layer."""
    spec = attention.spec
    shape = attention.kv_cache_shape(num_blocks)
    # Not zeroed: untouched memory costs nothing on a CPU, and no backend may read a slot that was never written.
    caches = [torch.empty(shape, dtype=spec.kv_dtype, device=spec.device) for _ in range(spec.num_layers)]
    if kernels != "fused":
        return ModuleNetwork(loaded.model, caches)
    from framework.kernels.cuda.decoder import FusedDecoder

    return FusedNetwork(FusedDecoder(loaded.model), caches)


def _fit_length(cfg: DictConfig, num_blocks: int, max_model_len: int) -> int:
    """A request must fit into the cache alone, or it could never end."""
    capacity_tokens = num_blocks * cfg.engine.block_size
    if capacity_tokens >= max_model_len:
        return max_model_len
    if cfg.engine.max_model_len is not None:
        raise ValueError(
            f"engine.max_model_len={max_model_len} tokens do not fit into the KV cache of {num_blocks} blocks of "
            f"{cfg.engine.block_size} ({capacity_tokens} tokens); lower it, or raise engine.num_blocks or "
            f"engine.kv_memory_fraction"
        )
    return capacity_tokens


def _warm_up(engine: Engine) -> None:
    """One short request, so that lazily built kernels and buffers are in no number; it leaves no trace."""
    engine.add_request(
        prompt_token_ids=[0] * min(8, engine.intake.max_model_len - 2),
        params=SamplingParams(temperature=0, max_tokens=2, ignore_eos=True),
    )
    while engine.has_work:
        engine.step()
    engine.reset()
