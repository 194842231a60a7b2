"""From a checked configuration to an engine that is ready to run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from framework.engine.engine import Engine
from framework.engine.intake import Intake
from framework.errors import IncompatibleError
from framework.execution.choose_attention import choose_attention
from framework.execution.device import resolve_device, resolve_dtype
from framework.execution.device_state import DeviceState
from framework.execution.device_thread import DeviceThread
from framework.execution.local import LocalExecutor
from framework.execution.memory import kv_block_bytes, num_kv_blocks
from framework.execution.runner import Runner
from framework.interfaces.attention import AttentionSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.kernels.cpu.optimize import optimize_for_cpu
from framework.loading.load import LoadedModel, load_config, load_model
from framework.loading.tokenizer import Tokenizer
from framework.models.config import ModelConfig
from framework.registry import EVICTIONS, SAMPLERS, SCHEDULERS


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
    startup_s: float
    """From here to the end of warm-up, imports excluded."""


def build_engine(cfg: DictConfig) -> BuiltEngine:
    """Check that everything works together, load the model, size the cache, warm up.

    Raises:
        IncompatibleError: before any weight is loaded, if plugins, model and machine cannot work together.
        ValueError: for values and files that are wrong in themselves.
    """
    thread = DeviceThread(cfg.executor.threads)
    try:
        return _build(cfg, thread)
    except BaseException:
        thread.close()
        raise


def _build(cfg: DictConfig, thread: DeviceThread) -> BuiltEngine:
    started = time.perf_counter()
    if cfg.executor.tp != 1:
        raise IncompatibleError(f"executor.tp={cfg.executor.tp}: executor=local runs one rank; set executor.tp=1")
    device = resolve_device(cfg.executor.device)
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
    sampler = SAMPLERS.build(cfg.sampler, config.vocab_size, device)
    loaded = thread.run(load_model, cfg.model, device=device, dtype=dtype, max_model_len=max_model_len)
    kernels = thread.run(optimize_for_cpu, loaded.model) if device.type == "cpu" else {}
    num_blocks = num_kv_blocks(cfg.engine, device, kv_block_bytes(spec), max_model_len)
    max_model_len = _fit_length(cfg, num_blocks, max_model_len)
    state = DeviceState(
        num_slots=spec.max_num_seqs, max_model_len=max_model_len, block_size=spec.block_size, device=device
    )
    runner = Runner(loaded.model, attention, sampler, state, num_blocks=num_blocks, block_size=spec.block_size)
    executor = LocalExecutor(runner, thread, num_blocks=num_blocks)
    engine = Engine(
        scheduler,
        eviction,
        executor,
        _intake(cfg, loaded, max_model_len, type(sampler).unsupported_reason),
        block_size=spec.block_size,
        max_num_seqs=spec.max_num_seqs,
        max_num_batched_tokens=spec.max_num_batched_tokens,
        overlap=cfg.engine.overlap,
        prefix_caching=cfg.engine.prefix_caching,
    )
    _warm_up(engine)
    effective: dict[str, object] = {
        "attention": attention_name,
        "attention_passed_over": passed_over,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "kv_dtype": str(kv_dtype).removeprefix("torch."),
        "threads": thread.run(torch.get_num_threads),
        "num_blocks": num_blocks,
        "max_model_len": max_model_len,
        "model_source": loaded.source,
        "load_s": round(loaded.load_s, 3),
        "kernels": kernels,
    }
    return BuiltEngine(
        engine=engine,
        tokenizer=loaded.tokenizer,
        model_config=config,
        eos_token_ids=loaded.eos_token_ids,
        max_model_len=max_model_len,
        effective=effective,
        startup_s=time.perf_counter() - started,
    )


def _intake(cfg: DictConfig, loaded: LoadedModel, max_model_len: int, refuses: Any) -> Intake:
    return Intake(
        vocab_size=loaded.config.vocab_size,
        max_model_len=max_model_len,
        seed=cfg.engine.seed,
        eos_token_ids=loaded.eos_token_ids,
        tokenizer=loaded.tokenizer,
        refuses=refuses,
    )


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
