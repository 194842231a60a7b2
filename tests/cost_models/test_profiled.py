"""Profiles: found again as they were written, refused where they do not belong, interpolated in between."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from framework.interfaces.cost_model import Deployment
from framework.interfaces.graph import GraphScope
from framework.registry import COST_MODELS
from framework.toolkit.step_profile import DecodeTable, StepProfile, interpolate
from tests.cost_models.test_roofline import PROFILES, decode, deployment, prefill

SHIPPED = PROFILES / "h200-qwen3_8b-bfloat16-tp1.json"


def test_what_is_shipped_is_found_by_its_name() -> None:
    model = COST_MODELS.build({"name": "profiled"}, deployment())
    assert model.cost(decode(8, 4000)).device_s == pytest.approx(5.5e-3, rel=0.1)
    assert model.cost(prefill(4096)).device_s == pytest.approx(0.105, rel=0.1)
    assert model.effective()["fit_error"]


def test_reading_gives_what_was_written(tmp_path: Path) -> None:
    profile = StepProfile.read(SHIPPED)
    path = tmp_path / "profile.json"
    path.write_text(profile.to_json())
    assert StepProfile.read(path) == profile


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tp": 2}, r"tp is 1, not 2.*executor.tp=2"),
        (
            {"dtype": "float16", "kv_dtype": "float16"},
            "dtype is bfloat16, not float16.*executor.device=cuda executor.dtype=float16, on h200",
        ),
        ({"kv_dtype": "float8_e4m3fn"}, "kv_dtype is bfloat16.*executor.device=cuda executor.kv_dtype=fp8, on h200"),
        ({"model_name": "other", "model": dataclasses.replace(deployment().model, num_layers=9)}, "model=other"),
        ({"hardware": deployment("a100").hardware}, "hardware is h200, not a100.*on a100"),
    ],
)
def test_a_profile_of_something_else_is_refused_with_the_command(change: dict[str, object], message: str) -> None:
    other: Deployment = dataclasses.replace(deployment(), **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"(?s){message}.*") as caught:
        COST_MODELS.build({"name": "profiled", "path": str(SHIPPED)}, other)
    assert "python run.py experiment=calibrate model=" in str(caught.value)


def test_a_missing_profile_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no profile for a100-qwen3_8b.*h200-qwen3_8b.*experiment=calibrate"):
        COST_MODELS.build({"name": "profiled"}, deployment("a100"))


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 0}'])
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"broken.json"):
        StepProfile.read(path)
    with pytest.raises(ValueError, match="no such file"):
        StepProfile.read(tmp_path / "none.json")


def test_graphs_that_were_not_measured_are_refused() -> None:
    step = decode(8, 400)._replace(scope=GraphScope.FORWARD)
    with pytest.raises(ValueError, match="knows graphs of scope step, not forward; calibrate again"):
        StepProfile.read(SHIPPED).cost(step)


def test_graphs_with_chunks_need_a_profile_that_knows_them() -> None:
    chunk = prefill(100)._replace(scope=GraphScope.STEP, padded_tokens=128, padded_rows=64)
    profile = StepProfile.read(SHIPPED)
    assert profile.cost(chunk).device_s < 0.5 * profile.cost(chunk._replace(scope=None)).launch_s + 0.01
    longer = chunk._replace(longest_chunk_kv=4000)
    assert profile.cost(longer).device_s > profile.cost(chunk).device_s + 1e-3
    with pytest.raises(ValueError, match="no graphs with prompt chunks; choose graph=full, or calibrate again"):
        dataclasses.replace(profile, mixed=None, mixed_launch=None).cost(chunk)


def test_graphs_of_decode_rows_need_a_profile_that_knows_them() -> None:
    with pytest.raises(ValueError, match="no graphs of decode rows; calibrate again with graph=full or mixed: python"):
        dataclasses.replace(StepProfile.read(SHIPPED), decode=None).cost(decode(8, 400))


def test_a_graph_that_is_captured_first_takes_longer() -> None:
    model = COST_MODELS.build({"name": "profiled"}, deployment())
    step = decode(8, 400)
    extra_s = model.cost(step._replace(captures=True)).host_s - model.cost(step).host_s
    assert extra_s == pytest.approx(deployment().hardware.capture_s)
    assert extra_s > 0


def test_tables_are_linear_between_what_was_measured() -> None:
    table = DecodeTable(rows=[2, 4], kv_tokens=[[100, 300], [200, 600]], seconds=[[1.0, 2.0], [2.0, 4.0]])
    assert table.seconds_of(2, 200) == 1.5
    assert table.seconds_of(4, 200) == 2.0
    assert table.seconds_of(3, 300) == pytest.approx((1.5 + 3.0) / 2)  # each at a context of 100 a row
    assert interpolate([5], [3.0], 99) == 3.0
    assert interpolate([1, 3], [1.0, 2.0], 5) == 3.0


@pytest.mark.parametrize("model", ["qwen3_0_6b", "qwen3_8b"])
def test_beyond_the_measured_contexts_more_rows_take_no_less_time(model: str) -> None:
    """One or two rows of 100,000 positions are far beyond what was measured of them, 32 such rows are not."""
    (path,) = PROFILES.glob(f"h200-{model}-*tp1.json")
    table = StepProfile.read(path).decode
    assert table is not None
    for context in (3_000, 10_000, 30_000, 100_000):
        times_s = [table.seconds_of(rows, rows * context) for rows in table.rows]
        for fewer_s, more_s in itertools.pairwise(times_s):
            assert more_s >= 0.99 * fewer_s, (context, times_s)
    for index, rows in enumerate(table.rows):  # no step where measuring ends
        last, last_s = table.kv_tokens[index][-1], table.seconds[index][-1]
        assert last_s <= table.seconds_of(rows, last + 1) < last_s * 1.001
