"""Which code `attention` stands for here; a refused backend is named once, with the reason and the alternative."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from framework.app.experiment import run_cell
from framework.app.llm import LLM
from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.execution.device.sizes import preferred_block_size
from framework.execution.kernels.cpu import native
from framework.execution.rank.choices import choose
from framework.interfaces.errors import IncompatibleError
from framework.interfaces.sampling_params import SamplingParams
from framework.records.record import read_record
from framework.records.tracking.base import CellInfo
from framework.registry import ATTENTIONS
from framework.registry.discovery import discover
from tests.attention.cases import Problem, Target

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device would be chosen")


@on_cpu
def test_a_refusal_names_the_backend_once() -> None:
    cfg = compose(["model=tiny", "workload=synthetic", "attention=flash4"])
    with pytest.raises(
        IncompatibleError, match=r"^attention=flash4 runs on CUDA GPUs, not on cpu; choose attention=sdpa$"
    ):
        choose(settings_of(cfg))


@pytest.mark.skipif(native.unavailable_reason() is not None, reason="needs a C++ compiler")
def test_flash_on_a_cpu_is_the_kernel_of_our_own() -> None:
    cfg = compose(["model=tiny", "workload=synthetic", "attention=flash", "executor.device=cpu"])
    choices = choose(settings_of(cfg))
    assert (choices.attention_name, choices.spec.block_size) == ("flash", 16)
    assert choices.attention.implementation() == native.version()
    assert "C++ kernels (build cpu-" in native.version()
    assert not choices.attention.separate_write


def test_the_headline_command_answers_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python run.py scheduler=prefill_first attention=flash`, but for the size of the model."""
    cfg = compose(["scheduler=prefill_first", "attention=flash", "model=tiny", "tracker=files", "executor.device=cpu"])
    assert run_cell(cfg, CellInfo(folder=tmp_path, cell_id="x", config={})) == "completed"
    record = read_record(tmp_path)
    assert record.metrics["requests_completed"] == len(record.outputs or []) == 6
    assert record.effective["attention"] == "flash"
    assert record.effective["attention_implementation"]
    assert "> What is the capital of France?" in capsys.readouterr().out


@pytest.mark.parametrize("cause", ["no C++ compiler", "float16"])
def test_flash_on_a_cpu_without_that_kernel_is_that_of_pytorch(cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if cause == "no C++ compiler":
        monkeypatch.setattr(native, "unavailable_reason", lambda: cause)
    options: dict[str, Any] = {"dtype": "float16"} if cause == "float16" else {}
    found = []
    for attention in ("flash", "sdpa"):
        with LLM("tiny", attention=attention, device="cpu", max_model_len=64, **options) as llm:
            params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
            found.append(llm.generate([[1, 2, 3]], params)[0].outputs[0].token_ids)
            said = str(llm.effective["attention_implementation"])
        assert f"PyTorch {torch.__version__}" in said
        assert (cause in said) == (attention == "flash")
    assert found[0] == found[1]


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Why `flash` cannot run a spec on an Ampere GPU, with the package there or not."""
    discover()
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (8, 0))

    def reason(installed: bool = True, **changes: Any) -> str | None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: ModuleType(name) if installed else None)
        problem = Problem(Target("flash", "cuda"), torch.bfloat16, 4, 2, 64, 256, ((0, 3),), num_padding=0, seed=1)
        return ATTENTIONS.get("flash").unsupported_reason(dataclasses.replace(problem.spec, **changes))

    return reason


def test_flash_on_a_gpu_is_the_package(on_gpu: Any) -> None:
    assert on_gpu() is None
    said = on_gpu(installed=False)
    assert said is not None
    assert "pip install flash-attn --no-build-isolation" in said
    assert len(said.splitlines()) == 1
    assert "engine.block_size=null" in on_gpu(block_size=16)
    assert "head size" in on_gpu(head_size=36)
    assert "executor.dtype=bfloat16" in on_gpu(dtype=torch.float32, kv_dtype=torch.float32)


@pytest.mark.parametrize(
    ("attention", "device_type", "size"),
    [("flash", "cuda", 256), ("flash", "cpu", 16), ("triton", "cuda", 256), ("sdpa", "cuda", 16), ("auto", "cuda", 16)],
)
def test_each_backend_says_which_blocks_it_prefers(attention: str, device_type: str, size: int) -> None:
    discover()
    assert preferred_block_size({"name": attention}, device_type)[0] == size


def test_two_backends_prefer_the_larger_blocks_of_the_two() -> None:
    split = ATTENTIONS.get("split").preferred_block_size
    assert split("cuda", {"prefill": "flash", "decode": "sdpa"}) == 256
    assert split("cuda", {}) == 16


def test_plugins_need_no_torch_to_say_so() -> None:
    """Simulations load none."""
    code = (
        "import sys; from framework.registry.discovery import discover; discover();"
        "from framework.execution.device.sizes import preferred_block_size as size;"
        "assert size({'name': 'split', 'prefill': 'flash'}, 'cuda')[0] == 256; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
