"""What `framework new` writes runs on a GPU, in a graph where its kind has to do with graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from framework.__main__ import main
from framework.app.cli.new import FOLDERS
from framework.app.llm import LLM
from framework.interfaces.sampling_params import SamplingParams

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

PROMPTS = [[(7 * i + j * j) % 500 for j in range(length)] for i, length in enumerate((5, 1, 40, 17, 3))]
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
OPTIONS: dict[str, Any] = {
    "max_num_seqs": 4,
    "max_num_batched_tokens": 32,
    "max_model_len": 64,
    "dtype": "float32",
    "kernels": "torch",
    "sampler": "greedy",
    "graph": "full",
}


def tokens(**options: Any) -> list[list[int]]:
    with LLM("tiny", **{**OPTIONS, **options}) as llm:
        if llm.effective["graph"] != "eager":
            assert int(str(llm.effective["graphs_captured"])) > 0
        return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, GREEDY)]


@pytest.fixture(scope="module")
def eager() -> list[list[int]]:
    return tokens(graph="eager", attention="sdpa")


@pytest.mark.parametrize("kind", [kind for kind in FOLDERS if kind not in ("cost_model", "router", "predictor")])
def test_runs_in_a_graph(kind: str, eager: list[list[int]], tmp_path: Path) -> None:
    name = f"on_gpu_{kind}"
    assert main(["new", kind, name, "--path", str(tmp_path)]) == 0
    assert tokens(**{kind: name, "plugins": [str(tmp_path / f"{name}.py")]}) == eager


@pytest.mark.parametrize("kind", ["attention", "sampler"])  # whose checks run on the GPU
def test_is_checked_here(kind: str, tmp_path: Path) -> None:
    name = f"checked_{kind}"
    assert main(["new", kind, name, "--path", str(tmp_path)]) == 0
    assert main(["check", f"{kind}={name}", f"plugins=[{tmp_path / name}.py]", "--examples", "4"]) == 0
