"""Builds an engine that is ready to run from a checked configuration."""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from framework.config.settings import Settings
from framework.config.typed import objectives
from framework.engine.config import EngineConfig
from framework.engine.engine import Engine
from framework.engine.intake import Intake
from framework.execution.built import BuiltEngine
from framework.execution.device.peaks import measure_peaks
from framework.execution.device.sizes import model_costs
from framework.execution.device.thread import DeviceThread
from framework.execution.kernels.cpu.blocks import BlockLinear
from framework.execution.parallel.executor import ParallelExecutor
from framework.execution.parallel.ranks import start_ranks, threads_per_rank
from framework.execution.policies import build_policies, renewal
from framework.execution.rank.choices import Choices, choose
from framework.execution.rank.compiled import compile_seconds
from framework.execution.rank.local import LocalExecutor
from framework.execution.rank.rank import OnDevice, Rank, build_rank, call_here
from framework.interfaces.errors import RankError
from framework.interfaces.eviction import NeedsFuture
from framework.interfaces.policies import Policies
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.models.decoder import DecoderLM
from framework.models.layers.experts import reset_router_load, router_load
from framework.models.layers.group import PeerError, TensorParallelGroup
from framework.models.loading.load import LoadedModel
from framework.models.split import config_of_rank
from framework.records.metrics.utilization import ModelCosts


def build_engine(cfg: Settings) -> BuiltEngine:
    """Check that everything works together, load the model, size the cache, warm up.

    Raises:
        IncompatibleError: before any weight is loaded, if plugins, model and machine cannot work together.
        ValueError: for values and files that are wrong in themselves.
    """
    started, compiled_s = time.perf_counter(), compile_seconds()
    choices = choose(cfg)
    cfg = choices.cfg
    policies = _policies(cfg)
    # Before weights and cache take the memory. What a step needs is counted over whole contexts, which windows are not.
    peaks = None if choices.spec.windows else measure_peaks(choices.device, choices.dtype)
    with ExitStack() as stack:  # closes what was started if anything fails on the way
        executor, rank = _executor(cfg, choices, stack)
        start_engine = _engine_around(cfg, choices, rank, executor)
        _warm_up(start_engine(policies))
        engine = start_engine(_policies(cfg))  # without a memory of warm-up
        reset_router_load(rank.loaded.model)
        effective = _effective(choices, rank) | executor.effective()
        if cfg.compile.level != "off":
            effective["compile_s"] = round(compile_seconds() - compiled_s, 3)
        executor.started()
        stack.pop_all()
    return BuiltEngine(
        engine=engine,
        tokenizer=rank.loaded.tokenizer,
        model_config=choices.config,
        eos_token_ids=rank.loaded.eos_token_ids,
        max_model_len=rank.max_model_len,
        effective=effective,
        costs=_costs(choices, rank),
        peaks=peaks,
        startup_s=time.perf_counter() - started,
        after_run=partial(_router_load, weakref.ref(rank.loaded.model)),  # which ends with the engine
    )


def _router_load(model: weakref.ref[DecoderLM]) -> dict[str, object]:
    loaded = model()
    if loaded is None:
        return {}
    load = router_load(loaded)
    reset_router_load(loaded)  # a further run counts its own
    return load


def _executor(cfg: Settings, choices: Choices, stack: ExitStack) -> tuple[LocalExecutor, Rank]:
    """Rank 0, and with executor.tp > 1 the others around it; `stack` closes what there is of them."""
    tp = choices.executor.tp
    num_threads = threads_per_rank(choices.executor) if tp > 1 else choices.executor.threads
    # A GPU needs no thread: its steps are enqueued and run by themselves.
    thread = DeviceThread(num_threads) if choices.device.type == "cpu" else None
    on_device: OnDevice = call_here
    if thread is not None:
        stack.callback(thread.close)
        on_device = thread.run
    if tp == 1:
        rank = build_rank(cfg, choices, TensorParallelGroup(), on_device)
        executor = LocalExecutor(rank.runner, thread, num_blocks=rank.num_blocks)
    else:
        ranks = start_ranks(cfg, threads_per_rank(choices.executor))
        stack.callback(ranks.end, now=True)
        try:
            group = ranks.join(choices).group
            rank = ranks.watched(partial(build_rank, cfg, choices, group, on_device), choices.device)
        except (PeerError, RankError) as error:
            if thread is not None:  # it may be what is stuck
                ranks.abort()
                thread.interrupt()
            if isinstance(error, RankError):
                raise
            raise ranks.watch.explain(error) from error
        ranks.wait_ready()
        executor = ParallelExecutor(rank, thread, ranks)
    stack.callback(executor.close)
    return executor, rank


def _policies(cfg: Settings) -> Policies:
    policies = build_policies(cfg)
    if isinstance(policies.eviction, NeedsFuture):
        policies.eviction.on_future([[]])  # of the warm-up; a cell tells the workload's before its first request
    return policies


def _engine_around(
    cfg: Settings, choices: Choices, rank: Rank, executor: LocalExecutor
) -> Callable[[Policies], Engine]:
    """Returns the function `start(policies) -> Engine`."""
    refuses = type(choices.sampler).unsupported_reason
    intake = _intake(choices.engine.seed, rank.loaded, rank.max_model_len, refuses, objectives(cfg))
    config = EngineConfig(
        block_size=choices.spec.block_size,
        max_num_seqs=choices.spec.max_num_seqs,
        max_num_batched_tokens=choices.spec.max_num_batched_tokens,
        overlap=choices.engine.overlap,
        prefix_caching=choices.engine.prefix_caching,
    )

    def start(policies: Policies) -> Engine:
        return Engine(
            policies.scheduler,
            policies.eviction,
            executor,
            intake,
            config,
            predictor=policies.predictor,
            renew=renewal(cfg),
        )

    return start


def _costs(choices: Choices, rank: Rank) -> ModelCosts:
    """What the steps of this rank cost, with the bytes that the weights have."""
    config = config_of_rank(choices.config, choices.executor.tp)
    costs = model_costs(config, choices.dtype.itemsize, choices.kv_dtype.itemsize)
    saved_bytes = 0
    for _, layer in rank.loaded.model.linear_layers():
        if isinstance(layer.kernel, BlockLinear):
            saved_bytes += layer.weight.numel() * choices.dtype.itemsize - layer.kernel.num_bytes
    return dataclasses.replace(costs, weight_bytes=costs.weight_bytes - saved_bytes)


def _effective(choices: Choices, rank: Rank) -> dict[str, object]:
    return {
        "attention": choices.attention_name,
        "attention_implementation": choices.attention.implementation(),
        "attention_passed_over": choices.attention_passed_over,
        "graph": choices.graph_name,
        "device": str(choices.device),
        "dtype": str(choices.dtype).removeprefix("torch."),
        "kv_dtype": str(choices.kv_dtype).removeprefix("torch."),
        **choices.sizes.effective(),
        "num_blocks": rank.num_blocks,
        "max_model_len": rank.max_model_len,
        "threads": rank.threads,
        "model_source": rank.loaded.source,
        "load_s": round(rank.loaded.load_s, 3),
        "weights_reused": rank.weights_reused,
        "kernels": rank.kernels,
        "activation_gib": round(rank.activation_bytes / 2**30, 3),
        "reasons": {"dtype": choices.dtype_reason, **choices.sizes.reasons},
        **({} if rank.kv_error is None else {"kv_error": rank.kv_error}),
        **({} if choices.attention.exact else {"attention_exact": False, "attention_error": rank.attention_error}),
    }


def _intake(
    seed: int, loaded: LoadedModel, max_model_len: int, refuses: Any, objectives: Mapping[str, float]
) -> Intake:
    return Intake(
        vocab_size=loaded.config.vocab_size,
        max_model_len=max_model_len,
        seed=seed,
        eos_token_ids=loaded.eos_token_ids,
        tokenizer=loaded.tokenizer,
        refuses=refuses,
        objectives=objectives,
    )


def _warm_up(engine: Engine) -> None:
    """Run one short request, so that no metric contains lazily built kernels and buffers. It leaves no trace."""
    num_prompt = max(1, min(8, engine.intake.max_model_len - 2))
    most = min(2, engine.intake.max_model_len - num_prompt)
    params = SamplingParams(temperature=0, max_tokens=most, ignore_eos=True)
    everything = dataclasses.replace(params, temperature=1.0, top_k=2, top_p=0.5, presence_penalty=0.5, logprobs=1)
    if engine.intake.refuses(everything) is None:  # else the sampler has no kernels for it
        params = everything
    engine.add_request(RequestSpec(prompt_token_ids=[0] * num_prompt, params=params))
    while engine.has_work:
        engine.step()
    engine.reset()
