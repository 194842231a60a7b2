"""The roofline against hand-made sums, and against what one H200 measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from framework.interfaces.cost_model import CostModel, Deployment, StepShape
from framework.registry import COST_MODELS
from framework.simulation.hardware import HARDWARE, hardware
from framework.toolkit.step_profile import StepProfile
from tests.engine import traces  # noqa: F401 (discovers the plugins)
from tests.step_shapes import decode_shape

PROFILES = Path(__file__).resolve().parents[2] / "plugins/cost_models/profiles"
QWEN3_8B = StepProfile.read(PROFILES / "h200-qwen3_8b-bfloat16-tp1.json").model


def deployment(name: str = "h200", tp: int = 1) -> Deployment:
    return Deployment(
        hardware=hardware(name), model_name="qwen3_8b", model=QWEN3_8B, dtype="bfloat16", kv_dtype="bfloat16", tp=tp
    )


def roofline(name: str = "h200", tp: int = 1, **parameters: float) -> CostModel:
    model: CostModel = COST_MODELS.build({"name": "roofline", **parameters}, deployment(name, tp))
    return model


def decode(rows: int, kv_tokens: int, padded: int | None = None) -> StepShape:
    return decode_shape(rows, kv_tokens, padded or rows)


def prefill(tokens: int) -> StepShape:
    return StepShape(
        num_tokens=tokens,
        num_rows=1,
        num_decode_rows=0,
        num_sampled=1,
        decode_kv_tokens=0,
        prefill_kv_tokens=tokens,
        prefill_pairs=tokens * (tokens + 1) // 2,
        scope=None,
        padded_tokens=tokens,
        padded_rows=1,
    )


def test_one_row_reads_the_weights_once() -> None:
    layer = 4096 * (2 * (32 + 8) * 128 + 3 * 12288)  # queries, keys, values, output; gate, up, down
    weight_s = 2 * (36 * layer + 151936 * 4096) / hardware("h200").bytes_per_s
    assert weight_s < roofline().cost(decode(1, 64)).device_s < 1.25 * weight_s


def test_a_long_prompt_runs_at_the_matrix_rate() -> None:
    tokens = 4096
    layer = 4096 * (2 * (32 + 8) * 128 + 3 * 12288)
    flops_s = 2 * 36 * layer * tokens / (hardware("h200").flops_per_s * 0.85)
    assert flops_s < roofline().cost(prefill(tokens)).device_s < 1.3 * flops_s


def test_context_costs_bandwidth_and_padding_costs_time() -> None:
    model = roofline()
    more_s = model.cost(decode(64, 264_000)).device_s - model.cost(decode(64, 64_000)).device_s
    assert more_s == pytest.approx(200_000 * 36 * 2 * 8 * 128 * 2 / hardware("h200").bytes_per_s)
    assert model.cost(decode(200, 20_000, padded=256)).device_s > model.cost(decode(200, 20_000)).device_s


def test_eager_steps_wait_for_the_host_and_graphs_do_not() -> None:
    eager = roofline().cost(prefill(16))
    assert eager.launch_s > eager.device_s
    assert roofline().cost(decode(16, 1000)).launch_s == 0


def test_tensor_parallel_ranks_share_work_and_pay_for_reductions() -> None:
    one, four = roofline().cost(prefill(8192)).device_s, roofline(tp=4).cost(prefill(8192)).device_s
    reductions_s = 2 * 36 * (hardware("h200").link_latency_s + 2 * 3 / 4 * 8192 * 4096 * 2 / 4.5e11)
    assert one / 4 < four < one / 4 + 1.5 * reductions_s
    slow = dataclasses.replace(hardware("h200"), link_latency_s=1e-3)
    slowed = COST_MODELS.build({"name": "roofline"}, dataclasses.replace(deployment(tp=4), hardware=slow))
    assert slowed.cost(prefill(8192)).device_s - four == pytest.approx(2 * 36 * (1e-3 - 1e-5))


def test_ranks_beyond_the_kv_heads_read_the_same_heads() -> None:
    def read_s(tp: int) -> float:
        roof = roofline(tp=tp)
        return roof.cost(decode(8, 900_000)).device_s - roof.cost(decode(8, 100_000)).device_s

    assert deployment().model.num_kv_heads == 8
    assert read_s(8) == pytest.approx(read_s(1) / 8)
    assert read_s(16) == pytest.approx(read_s(8))


def test_devices_are_ordered_as_their_bandwidths() -> None:
    times = [roofline(name).cost(decode(8, 8000)).device_s for name in ("h200", "h100", "a100", "rtx4090", "l40s")]
    assert times == sorted(times)
    assert all(device.source for device in HARDWARE.values())
    with pytest.raises(ValueError, match=r"executor.hardware=tpu does not exist; choose from h200, .*rtx4090"):
        hardware("tpu")


@pytest.mark.parametrize("model", ["qwen3_0_6b", "qwen3_8b"])
def test_large_decode_steps_are_within_15_percent_of_an_h200(model: str) -> None:
    """Where the device is full: few rows, of long context too, reach a part of the bandwidth only."""
    profile = StepProfile.read(PROFILES / f"h200-{model}-bfloat16-tp1.json")
    whole = dataclasses.replace(deployment(), model=profile.model)
    roof = COST_MODELS.build({"name": "roofline"}, whole)
    assert profile.decode is not None
    for rows, kv_tokens, seconds in zip(
        profile.decode.rows, profile.decode.kv_tokens, profile.decode.seconds, strict=True
    ):
        for kv, measured_s in zip(kv_tokens, seconds, strict=True):
            if rows >= 32 and kv >= 128 * rows:
                assert roof.cost(decode(rows, kv)).device_s == pytest.approx(measured_s, rel=0.15)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("roofline", {"matrix_share": 1.5}, r"cost_model.matrix_share=1.5 must be in \(0, 1\]"),
        ("roofline", {"host_s": -1.0}, "cost_model.host_s=-1.0 must be a finite number of seconds, at least 0"),
        ("roofline", {"host_row_s": float("nan")}, "cost_model.host_row_s=nan must be a finite number"),
        ("constant", {"step_s": -1.0}, "cost_model.step_s=-1.0 must be a finite number"),
        ("constant", {"step_s": 0.0, "token_s": 0.0}, "no time would pass"),
    ],
)
def test_impossible_parameters_are_refused(name: str, parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        COST_MODELS.build({"name": name, **parameters}, deployment())
