"""vLLM's names of engine settings: most are a key of ours, some need nothing, and the rest is refused with a remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_RENAMED = {
    "tensor_parallel_size": "tp",
    "gpu_memory_utilization": "kv_memory_fraction",
    "enable_prefix_caching": "prefix_caching",
    "num_gpu_blocks_override": "num_blocks",
    "kv_cache_dtype": "kv_dtype",
}
_MODEL_KEYS = ("tokenizer", "revision")
_MEANINGS: dict[str, dict[Any, dict[str, Any]]] = {
    "enforce_eager": {True: {"graph": "eager"}, False: {}},
    "enable_chunked_prefill": {True: {"scheduler": "chunked_prefill"}, False: {"scheduler": "prefill_first"}},
    "async_scheduling": {True: {"overlap": 1}, False: {"overlap": 0}},
    "scheduling_policy": {"fcfs": {}, "priority": {"scheduler": "priority"}},
    "disable_custom_all_reduce": {True: {"allreduce": "nccl"}, False: {}},
    "load_format": {
        "dummy": {"model": {"weights": "random"}},
        **{key: {} for key in ("auto", "safetensors", "hf", "gguf")},
    },
    "trust_remote_code": {True: {}, False: {}},  # no code of a model's folder is ever run, allowed or not
    "disable_log_stats": {True: {}, False: {}},
    "tokenizer_mode": {"auto": {}},
    "runner": {"auto": {}, "generate": {}},
    "task": {"auto": {}, "generate": {}},
    "quantization": {"gguf": {}},
    "distributed_executor_backend": {"mp": {}},
    "pipeline_parallel_size": {1: {}},
    "data_parallel_size": {1: {}},
    "swap_space": {0: {}},
    "cpu_offload_gb": {0: {}},
    "enable_expert_parallel": {False: {}},
    "enable_lora": {False: {}},
    "skip_tokenizer_init": {False: {}},
    "enable_sleep_mode": {False: {}},
}
"""Name -> value -> what it means here; any other value is refused."""
_REMEDIES = {
    "swap_space": "preempted requests are computed again, and their blocks are never copied to the host; leave it out",
    "cpu_offload_gb": "weights stay on the device; use more ranks (executor.tp, here tensor_parallel_size=2)",
    "pipeline_parallel_size": "layers are not split over devices; use executor.tp, here tensor_parallel_size",
    "data_parallel_size": "an LLM is one engine; executor.replicas simulates several in a run with a workload",
    "distributed_executor_backend": "ranks are processes of this host, or torchrun's; leave it out",
    "load_format": "weights are safetensors or GGUF by the file; model.weights=random, here load_format='dummy', needs "
    "none",
    "quantization": "quantized weights are those of .gguf files, given as the model; leave it out",
    "attention_backend": "choose a plugin by attention=..., such as attention='flash'",
    "attention_config": "choose a plugin by attention=..., such as attention='flash'",
    "compilation_config": "use compile={'level': 'model'}, and graph=... for CUDA graphs",
    "cudagraph_capture_sizes": "use graph={'name': 'bucketed', ...}; servelab plugins lists the parameters",
    "max_seq_len_to_capture": "use graph={'name': 'bucketed', ...}; servelab plugins lists the parameters",
    "scheduling_policy": "choose a plugin by scheduler=..., such as scheduler='priority'",
    "scheduler_cls": "register a scheduler plugin, and choose it by scheduler=...",
    "speculative_config": "there is no speculative decoding; leave it out",
    **dict.fromkeys(
        ("enable_lora", "max_loras", "max_lora_rank"), "adapters are not served; merge it into the weights"
    ),
    **dict.fromkeys(("task", "runner"), "models generate text; leave it out"),
    "hf_overrides": "use overrides=['model.config={...}'] for random weights",
    "tokenizer_revision": "revision is that of model and tokenizer",
    "tokenizer_mode": "the tokenizer is read from its files; leave it out",
    "skip_tokenizer_init": "the tokenizer is loaded where there is one; leave it out and pass token ids",
    "served_model_name": "use overrides=['model.name=...']",
    "download_dir": "set the environment variable HF_HOME",
    "limit_mm_per_prompt": "models take text; leave it out",
    "max_logprobs": "logprobs are not limited; leave it out",
    "max_num_partial_prefills": "use scheduler={'name': 'chunked_prefill', ...}; servelab plugins lists the parameters",
    "long_prefill_token_threshold": "use scheduler={'name': 'chunked_prefill', 'max_chunk_tokens': ...}",
    "enable_expert_parallel": "mixtures of experts are not served; leave it out",
    "enable_sleep_mode": "close the LLM and build another one; leave it out",
    "kv_transfer_config": "KV blocks stay with one engine; leave it out",
    "logits_processors": "register a sampler plugin, and choose it by sampler=...",
    "guided_decoding_backend": "there is no grammar; leave it out",
    "structured_outputs_config": "there is no grammar; leave it out",
    "generation_config": "it is not read; pass SamplingParams",
    "override_generation_config": "a model's generation config is not read; pass SamplingParams",
    "calculate_kv_scales": "fp8 needs no scales here; use kv_dtype='fp8'",
}
FAMILIAR = tuple(dict.fromkeys((*_RENAMED, *_MODEL_KEYS, *_MEANINGS, *_REMEDIES)))
"""Every name that means something here, if only a remedy."""
_DTYPES = {"half": "float16", "float": "float32", "fp8_e4m3": "fp8"}


def meanings() -> Iterator[tuple[str, str]]:
    """Each name and what it means, in words, for the reference."""
    for name in FAMILIAR:
        if name in _RENAMED:
            yield name, f"`{_RENAMED[name]}`"
        elif name in _MODEL_KEYS:
            yield name, f"`model.{name}`"
        else:
            values = _MEANINGS.get(name, {})
            shown = [
                f"`{value!r}`: `{meant}`" if meant else f"`{value!r}`: nothing to do" for value, meant in values.items()
            ]
            if name in _REMEDIES:
                shown.append(f"otherwise: {_REMEDIES[name]}" if values else _REMEDIES[name])
            yield name, "; ".join(shown)


def own_names(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """`keywords` of `LLM(...)` by ServeLab's names; those of the model are a mapping under `model`.

    Raises:
        ValueError: a name or value that is not served, with what to do; or the same setting given twice.
    """
    result: dict[str, Any] = {}
    origin: dict[str, str] = {}

    def put(key: str, value: Any, given: str) -> None:
        if key == "model":
            result.setdefault("model", {}).update(value)
        elif key in result and result[key] != value:
            raise ValueError(f"{given} and {origin[key]} both set {key}, to {value!r} and {result[key]!r}; pass one")
        else:
            result[key], origin[key] = value, given

    for name, value in keywords.items():
        if name in _RENAMED:
            if value is not None:
                put(_RENAMED[name], _plain_dtype(value) if name == "kv_cache_dtype" else value, name)
        elif name in _MODEL_KEYS:
            if value is not None:
                put("model", {name: str(value)}, name)
        elif name in _MEANINGS:
            if value is not None:
                for key, meant in _meaning(name, value).items():
                    put(key, meant, name)
        elif name in _REMEDIES:
            if value is not None:
                raise _refusal(name, value)
        else:
            put(name, _plain_dtype(value) if name in ("dtype", "kv_dtype") else value, name)
    return {key: value for key, value in result.items() if not (key == "seed" and value is None)}


def _meaning(name: str, value: Any) -> dict[str, Any]:
    meanings = _MEANINGS[name]
    same = [meant for known, meant in meanings.items() if type(known) is type(value) and known == value]
    same += [meant for known, meant in meanings.items() if isinstance(value, float) and known == value]
    if not same:
        raise _refusal(name, value)
    return same[0]


def _refusal(name: str, value: Any) -> ValueError:
    known = ", ".join(map(repr, _MEANINGS.get(name, ())))
    remedy = _REMEDIES.get(name) or f"pass one of {known}"
    return ValueError(f"LLM(...) does not serve {name}={value!r}: {remedy}")


def _plain_dtype(value: Any) -> Any:
    """A dtype's name, also of torch's dtype and by vLLM's other names."""
    text = str(value).removeprefix("torch.")
    return _DTYPES.get(text, value if isinstance(value, str) else text)
