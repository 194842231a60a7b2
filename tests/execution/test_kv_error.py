"""The error of a narrow KV cache is measured on the loaded weights, with the chosen backend, and recorded."""

from __future__ import annotations

import pytest
import torch

from framework.app.llm import LLM
from framework.execution.rank.kv_error import kv_error
from framework.interfaces.sampling_params import SamplingParams
from plugins.attention.sdpa import SDPA

NARROW = {"max_model_len": 64, "overrides": ["executor.kv_dtype=fp8"]}


def test_fp8_is_recorded_with_its_error_and_generates() -> None:
    with LLM("tiny", **NARROW) as llm:
        effective = llm.effective
        assert effective["kv_dtype"] == "float8_e4m3fn"
        assert effective["attention"] == "sdpa"
        assert "paged_cpu" in effective["attention_passed_over"]
        error = effective["kv_error"]
        # e4m3 rounds by up to 2^-4 and by 2.5 % in the mean; twice, for keys and values
        assert 0.005 < error["mean"] <= error["worst"] < 0.1
        assert error["saturated"] == 0
        (output,) = llm.generate([[1, 2, 3]], SamplingParams(temperature=0, max_tokens=5, ignore_eos=True))
        assert len(output.outputs[0].token_ids) == 5
        runner = llm.engine.executor._runner  # type: ignore[attr-defined]
        assert runner.network.kv_caches[0].dtype == torch.float8_e4m3fn


def test_the_usual_cache_has_no_error_to_record() -> None:
    with LLM("tiny", max_model_len=64) as llm:
        assert "kv_error" not in llm.effective


def test_a_backend_that_reads_the_wrong_values_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM("tiny", attention="sdpa", **NARROW) as llm:
        runner = llm.engine.executor._runner  # type: ignore[attr-defined]
        write = SDPA.forward
        monkeypatch.setattr(
            SDPA, "forward", lambda self, layer, q, k, v, *rest: write(self, layer, q, k, v * (layer + 1), *rest)
        )
        error = kv_error(runner.network.model, runner.attention, runner.network.kv_caches)
    assert error["worst"] > 0.9
    assert error["worst_layer"] == runner.network.model.config.num_layers - 1


def test_values_beyond_the_largest_number_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM("tiny", attention="sdpa", **NARROW) as llm:
        runner = llm.engine.executor._runner  # type: ignore[attr-defined]
        for layer in runner.network.model.layers:
            qkv = type(layer.self_attn).qkv

            def large(*args: object, qkv: object = qkv, attention: object = layer.self_attn) -> object:
                q, k, v = qkv(attention, *args)  # type: ignore[operator]
                return q, k, torch.full_like(v, 1000.0)

            monkeypatch.setattr(layer.self_attn, "qkv", large)
        error = kv_error(runner.network.model, runner.attention, runner.network.kv_caches)
    assert error["saturated"] == pytest.approx(0.5)
    assert error["worst"] == pytest.approx(0.552, abs=0.01)  # 448 in place of 1000
