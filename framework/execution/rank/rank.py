"""One rank, ready to run: its share of the model, its KV cache, its graphs. The same code builds rank 0 and workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ParamSpec, Protocol, TypeVar

import torch

from framework.config.settings import Settings
from framework.execution.device.capacity import fit_length
from framework.execution.device.memory import explain_out_of_memory, num_kv_blocks
from framework.execution.device.sizes import kv_token_bytes
from framework.execution.graphs.setup_graphs import build_graphs
from framework.execution.kernels.cpu import native
from framework.execution.kernels.cpu.optimize import optimize_for_cpu
from framework.execution.rank.attention_error import attention_error, check_exact
from framework.execution.rank.choices import Choices
from framework.execution.rank.compiled import compile_model
from framework.execution.rank.kv_error import kv_error
from framework.execution.rank.profile import measure_activation_bytes
from framework.execution.rank.reuse import load_once
from framework.execution.rank.runner import Runner
from framework.execution.step.device_state import DeviceState
from framework.execution.step.eager_steps import EagerSteps
from framework.execution.step.network import FusedNetwork, ModuleNetwork, Network
from framework.execution.step.sampling import Sampling
from framework.interfaces.attention import AttentionBackend
from framework.models.layers.group import Phase, TensorParallelGroup
from framework.models.loading.load import LoadedModel, load_model

P = ParamSpec("P")
T = TypeVar("T")


class OnDevice(Protocol):
    """Calls a function on the thread on which everything of the device happens."""

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


def call_here(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """An `OnDevice` for the current thread."""
    return function(*args, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """A runner and what was found out while it was built."""

    runner: Runner
    loaded: LoadedModel
    weights_reused: bool
    num_blocks: int
    max_model_len: int
    """The longest request. It is lowered to what the KV cache holds if the configuration left it open."""
    kernels: dict[str, object]
    """The kernels that run the layers, for the record."""
    activation_bytes: int
    threads: int
    """The number of CPU threads of the device's thread."""
    kv_error: dict[str, float] | None
    """The accuracy that a KV cache of another type than the model's costs."""
    attention_error: float | None
    """How far the attention backend is from exact attention, rounding included."""


def build_rank(
    cfg: Settings,
    choices: Choices,
    group: TensorParallelGroup,
    on_device: OnDevice,
    *,
    with_tokenizer: bool = True,
) -> Rank:
    """Load this rank's weights, size the cache, capture graphs. Ranks of a group have to do it at the same time.

    Raises:
        ValueError: memory runs out, or files do not hold what they should.
    """
    device, spec, attention = choices.device, choices.spec, choices.attention
    group.progress.enter(Phase.LOAD)
    (loaded, kernels), weights_reused = _load(cfg, choices, group, on_device, with_tokenizer)
    head = loaded.model.lm_head
    head.split = head.can_split and choices.sampler.can_shard
    group.progress.enter(Phase.SIZE)
    network = _network(loaded, attention, choices.kernels, 1)
    reserved = measure_activation_bytes(
        network, num_tokens=spec.max_num_batched_tokens, num_rows=spec.max_num_seqs, device=device
    )
    num_sharing = group.size if device.type == "cpu" else 1
    block_bytes = spec.block_size * kv_token_bytes(choices.config, choices.kv_dtype.itemsize, group.size)
    num_blocks = num_kv_blocks(
        choices.engine,
        choices.sizes,
        device,
        block_bytes,
        choices.max_model_len,
        reserved,
        num_sharing=num_sharing,
    )
    num_blocks = on_device(group.min, num_blocks, device)
    max_model_len = fit_length(choices.engine.max_model_len, spec.block_size, num_blocks, choices.max_model_len)
    state = DeviceState(
        num_slots=spec.max_num_seqs, max_model_len=max_model_len, block_size=spec.block_size, device=device
    )
    with explain_out_of_memory("allocating the KV cache", "engine.kv_memory_fraction or engine.num_blocks"):
        network = _network(loaded, attention, choices.kernels, num_blocks)
    narrowed = choices.kv_dtype != choices.dtype
    error = on_device(kv_error, loaded.model, attention, network.kv_caches) if narrowed else None
    deviation = on_device(attention_error, attention, network.kv_caches)
    check_exact(attention, choices.attention_name, deviation)
    group.progress.enter(Phase.CAPTURE)
    eager = EagerSteps(network, attention, state, Sampling(network, choices.sampler, state))
    graphs = build_graphs(choices.strategy, choices.graph_name, eager)
    return Rank(
        runner=Runner(eager, graphs, choices.strategy),
        loaded=loaded,
        num_blocks=num_blocks,
        max_model_len=max_model_len,
        weights_reused=weights_reused,
        kernels=kernels,
        activation_bytes=reserved,
        threads=on_device(torch.get_num_threads),
        kv_error=error,
        attention_error=deviation,
    )


def _load(
    cfg: Settings, choices: Choices, group: TensorParallelGroup, on_device: OnDevice, with_tokenizer: bool
) -> tuple[tuple[LoadedModel, dict[str, object]], bool]:
    """The model with its kernels, and whether an earlier cell of this process loaded it."""

    def load() -> tuple[LoadedModel, dict[str, object]]:
        dequantize = _why_dequantize(cfg, choices)
        with explain_out_of_memory("loading the weights", "the model's size or executor.dtype"):
            loaded = on_device(
                load_model,
                cfg.model,
                device=choices.device,
                dtype=choices.dtype,
                group=group,
                max_model_len=choices.max_model_len,
                with_tokenizer=with_tokenizer,
                keep_blocks=dequantize is None,
            )
        kernels: dict[str, object] = {"layers": choices.kernels}
        if choices.device.type == "cpu":
            kernels = on_device(optimize_for_cpu, loaded.model)
        if loaded.gguf_matrices is not None:
            kernels["gguf_matrices"] = loaded.gguf_matrices
            if dequantize is not None:
                kernels["gguf_dequantised_because"] = dequantize
        return loaded, kernels | compile_model(loaded.model, cfg.compile.level, cfg.compile.mode)

    if group.size > 1:
        return load(), False  # its layers hold the process group, which ends with the engine
    determined_by = {
        "model": asdict(cfg.model),
        "compile": asdict(cfg.compile),
        "at": [str(choices.device), str(choices.dtype), choices.max_model_len, choices.kernels, cfg.executor.threads],
    }
    return load_once(determined_by, load)


def _why_dequantize(cfg: Settings, choices: Choices) -> str | None:
    """Why the weights of a GGUF file cannot stay in their blocks. None if they can."""
    if cfg.model.dequantize:
        return "model.dequantize=true"
    if choices.device.type != "cpu":
        return f"there are no kernels for blocks on {choices.device.type}"
    if choices.dtype not in native.SUPPORTED_DTYPES:
        return f"there are no kernels for blocks with executor.dtype={cfg.executor.dtype}"
    return native.unavailable_reason()


def _network(loaded: LoadedModel, attention: AttentionBackend, kernels: str, num_blocks: int) -> Network:
    """The model with a KV cache of `num_blocks` blocks per layer."""
    spec = attention.spec
    shape = attention.kv_cache_shape(num_blocks)
    # Not zeroed: untouched memory costs nothing on a CPU, and no backend may read a slot that was never written.
    caches = [torch.empty(shape, dtype=spec.kv_dtype, device=spec.device) for _ in range(spec.num_layers)]
    if kernels != "fused":
        return ModuleNetwork(loaded.model, caches)
    from framework.execution.kernels.cuda.decoder import FusedDecoder

    return FusedNetwork(FusedDecoder(loaded.model), caches)
