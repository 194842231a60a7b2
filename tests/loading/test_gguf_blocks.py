"""Matrices of a GGUF file that stay in its blocks: which do, that they are the right ones, and what the record says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from framework.app.llm import LLM
from framework.execution.kernels.cpu import native
from framework.execution.kernels.cpu.optimize import optimize_for_cpu
from framework.interfaces.sampling_params import SamplingParams
from framework.models.layers.block_layer import LayerOfBlocks
from framework.models.layers.group import TensorParallelGroup
from framework.models.layers.quantized import QuantizedRows
from framework.models.loading.gguf_file import GGUFFile
from framework.models.loading.load import LoadedModel, load_model
from tests.loading.gguf_reference import reference_model
from tests.loading.gguf_writer import FEED_FORWARD, HIDDEN, write_gguf
from tests.models.dense_forward import logits

BIASES = {"attn_q": HIDDEN, "attn_k": HIDDEN // 2, "attn_v": HIDDEN // 2}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.gguf"


@pytest.fixture(scope="module")
def kernels() -> None:
    if reason := native.unavailable_reason():
        pytest.skip(reason)


def load(path: Path, *, keep: bool = True, rank: int = 0, size: int = 1) -> LoadedModel:
    group = TensorParallelGroup(rank=rank, size=size)
    device = torch.device("cpu")
    settings = {"device": device, "dtype": torch.float32, "group": group, "with_tokenizer": False}
    return load_model({"path": str(path)}, keep_blocks=keep, **settings)


def numbers(pieces: tuple[QuantizedRows, ...]) -> torch.Tensor:
    return torch.cat([torch.from_numpy(dequantize(one.blocks, GGMLQuantizationType(one.kind))) for one in pieces])


@pytest.mark.parametrize(
    ("kind", "architecture", "tied"), [("Q4_0", "llama", True), ("Q4_1", "llama", False), ("Q8_0", "qwen2", False)]
)
def test_every_rank_keeps_the_blocks_that_it_would_dequantise(
    path: Path, kind: str, architecture: str, tied: bool
) -> None:
    biases = BIASES if architecture == "qwen2" else {}
    write_gguf(path, quantisation=GGMLQuantizationType[kind], architecture=architecture, tied=tied, biases=biases)
    for rank, size in ((0, 1), (0, 2), (1, 2)):
        kept, dense = (load(path, keep=keep, rank=rank, size=size) for keep in (True, False))
        plain = dict(dense.model.named_modules())
        in_blocks = set()
        for name, layer in kept.model.named_modules():
            if isinstance(layer, LayerOfBlocks):
                same = plain[name].weight
                assert torch.equal(numbers(layer.pieces) if layer.pieces else layer.weight, same), name
                assert layer.weight.shape == same.shape
                in_blocks |= {name.split(".")[-1]} if layer.pieces else set()
        # A share of 48 columns of the feed-forward block ends inside a block of 32.
        everything = {"embed_tokens", "qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"}
        assert in_blocks == (everything if size == 1 else everything - {"down_proj"})
        assert kept.gguf_matrices == ({kind: 16 - tied} if size == 1 else {kind: 14 - tied, f"{kind}, dequantised": 2})
    assert FEED_FORWARD // 2 % 32


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_logits_are_those_of_transformers(path: Path, architecture: str) -> None:
    biases = BIASES if architecture == "qwen2" else {}
    write_gguf(path, quantisation=GGMLQuantizationType.Q4_1, architecture=architecture, biases=biases, tied=False)
    model = load(path).model
    assert optimize_for_cpu(model)["linear_kernel"] == "blocks"
    ids = list(range(3, 80))
    with torch.inference_mode():
        expected = reference_model(path)(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits(model, ids), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("kernels")
def test_only_some_matrices_can_stay(path: Path) -> None:
    """One of three that share a kernel is of a type that no kernel reads: then all three are dequantised."""
    other = {"blk.1.attn_v.weight": GGMLQuantizationType.Q5_1, "blk.0.ffn_down.weight": GGMLQuantizationType.F16}
    write_gguf(path, quantisation=GGMLQuantizationType.Q8_0, other_kinds=other)
    loaded = load(path)
    forms = {"Q8_0": 11, "Q8_0, dequantised": 2, "Q5_1, dequantised": 1, "F16, dequantised": 1}
    assert loaded.gguf_matrices == forms
    chosen = optimize_for_cpu(loaded.model)
    assert chosen["linear_kernel"] == "blocks, native"
    ids = list(range(3, 40))
    exact = logits(load(path, keep=False).model, ids)
    torch.testing.assert_close(logits(loaded.model, ids), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("half", [b"\x00\x7e", b"\x00\xfc"])
def test_a_scale_that_is_not_finite_is_named(path: Path, half: bytes) -> None:
    write_gguf(path, quantisation=GGMLQuantizationType.Q4_1)
    start = GGUFFile(path).tensors["blk.1.ffn_up.weight"].start
    with path.open("r+b") as file:
        file.seek(start + 20 * 5 + 2)
        file.write(half)
    with pytest.raises(ValueError, match=r"tiny\.gguf: tensor blk\.1\.ffn_up\.weight holds a scale that is NaN"):
        load(path)


@pytest.mark.usefixtures("kernels")
def test_the_record_says_which_path_ran(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(path, quantisation=GGMLQuantizationType.Q4_1)

    weight_bytes = []

    def run(*overrides: str, dtype: str = "float32") -> tuple[dict[str, object], list[int]]:
        with LLM(str(path), dtype=dtype, max_model_len=64, num_blocks=16, overrides=list(overrides)) as llm:
            output = llm.generate([list(range(3, 20))], SamplingParams(temperature=0, max_tokens=8, ignore_eos=True))
            kernels = llm.effective["kernels"]
            weight_bytes.append(llm._built.costs.weight_bytes)
            assert isinstance(kernels, dict)
            return kernels, output[0].outputs[0].token_ids

    kept, tokens = run()
    assert kept["linear_kernel"] == "blocks"
    assert kept["gguf_matrices"] == {"Q4_1": 15}
    assert "gguf_dequantised_because" not in kept
    exact, same = run("model.dequantize=true")
    assert (exact["linear_kernel"], exact["gguf_dequantised_because"]) == ("native", "model.dequantize=true")
    assert tokens == same
    norms = 4 * 5 * HIDDEN
    assert weight_bytes[0] - norms < (weight_bytes[1] - norms) / 4  # 5 bits in place of 32, and some padding
    monkeypatch.setattr(native, "unavailable_reason", lambda: "no compiler here")
    assert run()[0]["gguf_dequantised_because"] == "no compiler here"


def test_blocks_are_mapped_not_copied(path: Path) -> None:
    write_gguf(path, quantisation=GGMLQuantizationType.Q4_1, architecture="qwen2", biases=BIASES)
    model = load(path).model
    assert isinstance(model.layers[1].mlp.down_proj.pieces[0].blocks, np.memmap)
