"""Names that vLLM's users bring: they work, or the error says what to do here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from framework.app.llm import LLM
from framework.config.api import api_overrides
from framework.config.compose import compose
from framework.config.familiar import _MEANINGS, _REMEDIES, _RENAMED
from framework.interfaces.sampling_params import SamplingParams

SHORT = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("tiny", max_model_len=64, threads=1) as llm:
        yield llm


@pytest.mark.parametrize(
    ("keywords", "key", "value"),
    [
        ({"tensor_parallel_size": 2}, "executor.tp", 2),
        ({"gpu_memory_utilization": 0.5}, "engine.kv_memory_fraction", 0.5),
        ({"enable_prefix_caching": False}, "engine.prefix_caching", False),
        ({"num_gpu_blocks_override": 9}, "engine.num_blocks", 9),
        ({"kv_cache_dtype": "fp8_e4m3"}, "executor.kv_dtype", "fp8"),
        ({"dtype": torch.bfloat16}, "executor.dtype", "bfloat16"),
        ({"dtype": "half"}, "executor.dtype", "float16"),
        ({"enforce_eager": True}, "graph.name", "eager"),
        ({"enforce_eager": False}, "graph.name", "auto"),
        ({"enable_chunked_prefill": False}, "scheduler.name", "prefill_first"),
        ({"scheduling_policy": "priority"}, "scheduler.name", "priority"),
        ({"scheduling_policy": "fcfs"}, "scheduler.name", "chunked_prefill"),
        ({"async_scheduling": False}, "engine.overlap", 0),
        ({"load_format": "dummy"}, "model.weights", "random"),
        ({"load_format": "auto"}, "model.weights", "auto"),
        ({"tokenizer": "some/where"}, "model.tokenizer", "some/where"),
        ({"revision": "main"}, "model.revision", "main"),
        ({"seed": 3}, "engine.seed", 3),
        ({"seed": None, "max_model_len": None, "swap_space": 0, "quantization": None}, "engine.max_model_len", None),
        ({"tp": 2, "tensor_parallel_size": 2}, "executor.tp", 2),
    ],
)
def test_an_engine_name_is_the_key_that_it_means(keywords: dict[str, Any], key: str, value: object) -> None:
    section, name = key.split(".")
    assert compose(api_overrides("smollm2", keywords))[section][name] == value


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"swap_space": 4}, "swap_space=4: preempted requests are computed again.*leave it out"),
        ({"pipeline_parallel_size": 2}, "use executor.tp"),
        ({"pipeline_parallel_size": True}, "pipeline_parallel_size=True"),
        ({"enforce_eager": "yes"}, "enforce_eager='yes': pass one of True, False"),
        ({"attention_backend": "FLASH_ATTN"}, "attention='flash'"),
        ({"load_format": "pt"}, "load_format='pt'"),
        ({"speculative_config": {}}, "no speculative decoding"),
        ({"tensor_parallel_size": 2, "tp": 4}, "tp and tensor_parallel_size both set tp, to 4 and 2"),
        ({"enforce_eager": True, "graph": "full"}, "both set graph"),
        ({"max_num_seq": 2}, "did you mean max_num_seqs"),
        ({"gpu_memory_utilisation": 0.5}, "did you mean gpu_memory_utilization"),
        ({"overrides": "seed=3"}, r"pass overrides=\['seed=3'\]"),
    ],
)
def test_what_an_engine_does_not_have_is_named_with_a_remedy(keywords: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        api_overrides("tiny", keywords)


def test_every_familiar_name_has_one_meaning() -> None:
    assert not set(_RENAMED) & (set(_MEANINGS) | set(_REMEDIES))
    composed = {"graph", "scheduler", "overlap", "allreduce", "model"}
    assert {key for values in _MEANINGS.values() for meant in values.values() for key in meant} <= composed


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("best_of", "pass n"),
        ("structured_outputs", "allowed_token_ids"),
        ("temprature", "did you mean temperature"),
        ("nonesuch", "has no parameter 'nonesuch'"),
    ],
)
def test_a_sampling_parameter_that_is_not_served_is_named(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SamplingParams(**{name: 3})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"n": 0}, "n=0 must be at least 1"),
        ({"min_tokens": 17}, "min_tokens=17 must be at most max_tokens=16; pass a lower number, or raise max_tokens"),
        ({"allowed_token_ids": []}, "at least one token id; pass None"),
        ({"allowed_token_ids": [1], "presence_penalty": 1}, "must be without penalties"),
        ({"bad_words": ["a", ""]}, "none of them empty"),
        ({"skip_special_tokens": 1}, "skip_special_tokens=1 must be True or False"),
    ],
)
def test_new_sampling_parameters_have_limits(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SamplingParams(**values)


def test_minus_one_keeps_every_token_and_the_older_keyword_works(llm: LLM) -> None:
    assert SamplingParams(top_k=-1) == SamplingParams(top_k=0)
    assert llm.generate("a", params=SHORT)[0].outputs[0].token_ids == llm.generate("a", SHORT)[0].outputs[0].token_ids
    with pytest.raises(ValueError, match="params, their older name, too"):
        llm.generate("a", SHORT, params=SHORT)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ({"prompt": "a", "multi_modal_data": {"image": 1}}, "'multi_modal_data' is not served"),
        ({}, "has no text"),
        ({"prompt_token_ids": "abc"}, "prompt_token_ids='abc' is no list of token ids; pass text as prompt"),
        (np.zeros((2, 2, 2), dtype=int), r"shape \[2, 2\]"),
        (np.array([0.5, 1.0]), "prompt token id 0.5 is not an integer"),
        (torch.tensor([[600]]), "prompt token id 600 is out of range"),
        (7.5, "prompt 7.5 is neither"),
    ],
)
def test_a_prompt_that_is_none_is_named(llm: LLM, prompt: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        llm.generate(prompt, SHORT)


def test_keywords_and_methods_that_are_not_served_are_named(llm: LLM) -> None:
    assert llm.generate("a", SHORT, lora_request=None)
    with pytest.raises(ValueError, match=r"LLM\.generate does not take lora_request='x': adapters are not served"):
        llm.generate("a", SHORT, lora_request="x")
    with pytest.raises(ValueError, match=r"LLM.chat does not take nonesuch=1"):
        llm.chat([{"role": "user", "content": "a"}], SHORT, nonesuch=1)
    with pytest.raises(AttributeError, match="there is no beam search"):
        llm.beam_search  # noqa: B018
    with pytest.raises(ValueError, match="n=2: a request to the engine is one answer"):
        next(llm.stream("a", SamplingParams(n=2)))
    with pytest.raises(ValueError, match="'high' is no int; pass priority once"):
        llm.generate("a", SHORT, priority="high")  # type: ignore[arg-type]


def test_a_message_that_is_none_is_named(llm: LLM) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(ValueError, match=r"messages.0.content.1: a part of type image_url is not served"):
        llm.chat([{"role": "user", "content": parts}], SHORT)
    with pytest.raises(ValueError, match=r"messages\.0="):
        llm.chat([{"content": "no role"}], SHORT)
    with pytest.raises(ValueError, match="not valid Jinja"):
        llm.chat([{"role": "user", "content": "a"}], SHORT, chat_template="{% if %}")


def test_one_of_several_answers_that_cannot_be_keeps_none_back(llm: LLM) -> None:
    good, bad = llm.generate(["ok", [600]], SamplingParams(n=2, max_tokens=2, ignore_eos=True))
    assert (good.finished, len(good.outputs), bad.finished, bad.outputs, bad.request_id) == (True, 2, False, [], "")
