"""Builds an engine with timed steps from a checked configuration. Loads torch only for prompts that are text."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from framework.config.settings import Settings
from framework.config.typed import objectives
from framework.engine.config import EngineConfig
from framework.engine.engine import Engine
from framework.engine.fleet import Fleet
from framework.engine.intake import Intake
from framework.execution.built import BuiltEngine
from framework.execution.device.capacity import choose_blocks, fit_length
from framework.execution.device.dtype import choose_dtype, choose_kv_dtype
from framework.execution.device.sizes import (
    Room,
    Sizes,
    activation_bytes,
    choose_step,
    kv_token_bytes,
    model_costs,
    preferred_block_size,
)
from framework.execution.graphs.choose_graph import simulated_graph, strategy_of
from framework.execution.policies import build_policies, renewal
from framework.interfaces.clock import PacedClock, VirtualClock
from framework.interfaces.cost_model import CostModel, Deployment, Hardware
from framework.interfaces.errors import IncompatibleError
from framework.interfaces.graph import GraphLimits
from framework.interfaces.settings import EngineSettings
from framework.models.config import ModelConfig
from framework.models.loading.read_config import load_config, weights_dtype
from framework.models.shape import model_shape
from framework.models.split import check_split
from framework.records.metrics.utilization import DevicePeaks
from framework.registry import COST_MODELS, ROUTERS, WORKLOADS
from framework.simulation.executor import SimulatedExecutor
from framework.simulation.hardware import hardware
from framework.simulation.shadow_memory import ShadowMemory

if TYPE_CHECKING:
    from framework.models.loading.tokenizer import Tokenizer

_CONTEXT_GIB = 0.6
"""The memory that the driver and PyTorch take on a GPU before the first tensor."""


def build_simulated(cfg: Settings) -> BuiltEngine:
    """Check that everything works together and size the KV cache as the real engine would on that device.

    Raises:
        IncompatibleError: if the choices cannot work together.
        ValueError: for values that are wrong in themselves.
    """
    started = time.perf_counter()
    engine = cfg.engine
    config = load_config(cfg.model, max_model_len=engine.max_model_len)
    deployment, dtype_reason = _deployment(cfg, config)
    sizes = _sizes(engine, cfg.attention, config, deployment)
    num_blocks, max_model_len, reserved = _capacity(engine, sizes, config, deployment)
    cost_model: CostModel = COST_MODELS.build(cfg.cost_model, deployment)
    clock = PacedClock if WORKLOADS.get(cfg.workload.name).is_live else VirtualClock
    replicas = [
        build_replica(cfg, sizes, config, cost_model, num_blocks, max_model_len, clock(), verify=cfg.executor.verify)
        for _ in range(cfg.executor.replicas)
    ]
    fleet = None
    if len(replicas) > 1:
        fleet = Fleet(
            replicas,
            ROUTERS.build(cfg.router),
            hardware=deployment.hardware.name,
            staleness_s=cfg.executor.router_staleness_s,
        )
    costs = model_costs(config, deployment.item_bytes, deployment.kv_item_bytes)
    effective: dict[str, object] = {
        "device": f"simulated {deployment.hardware.device_name}",
        "dtype": deployment.dtype,
        "kv_dtype": deployment.kv_dtype,
        "memory_gib": deployment.hardware.memory_gib,
        **sizes.effective(),
        "num_blocks": num_blocks,
        "max_model_len": max_model_len,
        "activation_gib": round(reserved / 2**30, 3),
        "graph": simulated_graph(cfg),
        "reasons": {"dtype": dtype_reason, **sizes.reasons},
        "cost_model": {"name": cfg.cost_model.name, **cost_model.effective()},
        "not_simulated": {
            "sampler": f"{cfg.sampler.name}: tokens are a function of request and position; requests run to their true "
            "length where the workload states one, else to max_tokens",
            "attention": f"{cfg.attention.name}: the cost model knows one attention",
        },
        **replicas[0].executor.effective(),
    }
    if fleet is not None:
        effective |= {"replicas": len(replicas), "router": cfg.router.name}
    return BuiltEngine(
        engine=fleet or replicas[0],
        tokenizer=_tokenizer(cfg),
        model_config=config,
        eos_token_ids=config.eos_token_ids,
        max_model_len=max_model_len,
        effective=effective,
        costs=costs,
        peaks=DevicePeaks(
            bytes_per_s=deployment.hardware.bytes_per_s * deployment.tp * len(replicas),
            flops_per_s=deployment.hardware.flops_per_s * deployment.tp * len(replicas),
        ),
        startup_s=time.perf_counter() - started,
        after_run=fleet.effective if fleet is not None else dict,
    )


def _tokenizer(cfg: Settings) -> Tokenizer | None:
    """The model's own tokenizer, which counts the tokens of prompts that are text. Other workloads need none.

    Raises:
        IncompatibleError: there is none to be had.
    """
    if not WORKLOADS.get(cfg.workload.name).has_text:
        return None
    from framework.models.loading.load import load_tokenizer  # loads torch

    asked, remedy = f"workload={cfg.workload.name} is text", "choose workload=synthetic, nano_bench or a trace"
    try:
        tokenizer = load_tokenizer(cfg.model)
    except ValueError as error:
        raise IncompatibleError(f"{asked}, whose tokens cannot be counted: {error}; or {remedy}") from error
    if tokenizer is None:
        raise IncompatibleError(f"{asked}, and model.name={cfg.model.name} has no tokenizer; {remedy}")
    return tokenizer


def build_replica(
    cfg: Settings,
    sizes: Sizes,
    config: ModelConfig,
    cost_model: CostModel,
    num_blocks: int,
    max_model_len: int,
    clock: VirtualClock,
    *,
    verify: bool = False,
) -> Engine:
    """One engine with policies of its own; `verify`: with a shadow of the KV memory, which checks every read."""
    engine = cfg.engine
    limits = GraphLimits(
        max_num_seqs=sizes.max_num_seqs, max_num_batched_tokens=sizes.max_num_batched_tokens, mixed_supported=True
    )
    executor = SimulatedExecutor(
        cost_model,
        strategy_of(cfg, simulated_graph(cfg)),
        limits,
        num_blocks=num_blocks,
        vocab_size=config.vocab_size,
        clock=clock,
        memory=ShadowMemory(num_blocks, sizes.block_size, sizes.max_num_seqs) if verify else None,
    )
    intake = Intake(
        vocab_size=config.vocab_size,
        max_model_len=max_model_len,
        seed=engine.seed,
        simulated_block_size=sizes.block_size,
        objectives=objectives(cfg),
    )
    policies = build_policies(cfg)
    return Engine(
        policies.scheduler,
        policies.eviction,
        executor,
        intake,
        EngineConfig(
            block_size=sizes.block_size,
            max_num_seqs=sizes.max_num_seqs,
            max_num_batched_tokens=sizes.max_num_batched_tokens,
            overlap=engine.overlap,
            prefix_caching=engine.prefix_caching,
        ),
        predictor=policies.predictor,
        renew=renewal(cfg),
    )


def read_deployment(cfg: Settings) -> Deployment:
    """The deployment that a cost model is built for.

    Raises:
        IncompatibleError, ValueError: as `build_simulated`.
    """
    return _deployment(cfg, load_config(cfg.model, max_model_len=cfg.engine.max_model_len))[0]


def _deployment(cfg: Settings, config: ModelConfig) -> tuple[Deployment, str]:
    """What is simulated, and the reason for its dtype."""
    tp = cfg.executor.tp
    check_split(config, tp)
    if config.windows_within(cfg.engine.max_model_len or config.max_model_len):
        raise IncompatibleError(
            f"executor=simulated: layers of this {config.architecture} attend to {config.sliding_window} tokens, and "
            f"cost models time whole contexts; set engine.max_model_len={config.sliding_window} or less, or "
            f"executor=local"
        )
    device = hardware(cfg.executor.hardware)
    if cfg.executor.memory_gib is not None:
        device = dataclasses.replace(device, memory_gib=cfg.executor.memory_gib)
    dtype, reason = choose_dtype(cfg.executor.dtype, _device_type(device), weights_dtype(cfg.model, config))
    deployment = Deployment(
        hardware=device,
        model_name=cfg.model.name,
        model=model_shape(config),
        dtype=dtype,
        kv_dtype=choose_kv_dtype(cfg.executor.kv_dtype, dtype),
        tp=tp,
    )
    return deployment, reason


def _device_type(device: Hardware) -> str:
    return "cpu" if device.name == "cpu" else "cuda"


def _sizes(engine: EngineSettings, attention: Mapping[Any, Any], config: ModelConfig, deployment: Deployment) -> Sizes:
    """Those that the real engine would have on that device."""
    device, device_type = deployment.hardware, _device_type(deployment.hardware)
    room = Room(
        memory_bytes=None if device_type == "cpu" else int(device.memory_gib * 2**30),
        item_bytes=deployment.item_bytes,
        kv_item_bytes=deployment.kv_item_bytes,
        tp=deployment.tp,
    )
    rows, tokens, reasons = choose_step(engine, config, room)
    block_size = engine.block_size
    if block_size is None:
        block_size, reasons["block_size"] = preferred_block_size(attention, device_type)
    return Sizes(rows, tokens, block_size, reasons)


def _capacity(
    engine: EngineSettings, sizes: Sizes, config: ModelConfig, deployment: Deployment
) -> tuple[int, int, int]:
    """KV blocks, the longest request, and bytes reserved for activations, on each rank."""
    tp = deployment.tp
    item, device = deployment.item_bytes, deployment.hardware
    weights = config.num_parameters * item // tp
    reserved = activation_bytes(config, sizes.max_num_batched_tokens, sizes.max_num_seqs, item, tp)
    total = int(device.memory_gib * 2**30)
    available = total - int(_CONTEXT_GIB * 2**30) - weights - reserved
    block_bytes = sizes.block_size * kv_token_bytes(config, deployment.kv_item_bytes, tp)
    max_model_len = engine.max_model_len or config.max_model_len
    budget = int(available - total * (1 - engine.kv_memory_fraction))
    num_blocks = choose_blocks(engine, sizes, block_bytes, available, budget, max_model_len, device.name)
    return num_blocks, fit_length(engine.max_model_len, sizes.block_size, num_blocks, max_model_len), reserved
