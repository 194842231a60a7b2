"""What a rank of several does with the others: two sums per layer, and its own slices of the files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from framework.models.decoder import DecoderLM
from framework.models.layers.group import TensorParallelGroup
from framework.models.loading import checkpoint
from framework.models.loading.load import load_model
from tests.parity.families import FAMILIES, save_model

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Alone(TensorParallelGroup):
    """A rank whose peers contribute nothing."""

    sums: list[tuple[int, ...]] = field(default_factory=list)

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        self.sums.append(tuple(x.shape))
        return x


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen2")  # with biases
    save_model("qwen2", path)
    return path


def load(folder: Path, group: TensorParallelGroup) -> DecoderLM:
    cfg = {"path": str(folder), "weights": "auto"}
    return load_model(cfg, device=CPU, dtype=torch.float32, group=group, with_tokenizer=False).model


def test_two_sums_a_layer_and_one_for_the_embedding(folder: Path) -> None:
    group = Alone(1, 2)
    model = load(folder, group)
    with torch.inference_mode():
        model(torch.arange(5), torch.arange(5), lambda layer, q_TNH, k_TMH, v_TMH: q_TNH)
    assert group.sums == [(5, model.config.hidden_size)] * (1 + 2 * model.config.num_layers)


def test_a_rank_reads_its_own_slices_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    class Slice:
        def __init__(self, whole: Any) -> None:
            self.get_shape, self.get_dtype, self._whole = whole.get_shape, whole.get_dtype, whole

        def __getitem__(self, index: Any) -> torch.Tensor:
            nonlocal read
            part: torch.Tensor = self._whole[index]
            read += part.numel()
            return part

    class File:
        def __init__(self, file: Any) -> None:
            self._file, self.keys = file, file.keys

        def get_slice(self, name: str) -> Slice:
            return Slice(self._file.get_slice(name))

    opened = checkpoint.open_tensors

    @contextmanager
    def watched(path: Path) -> Iterator[File]:
        with opened(path) as file:
            yield File(file)

    monkeypatch.setattr(checkpoint, "open_tensors", watched)
    model = load(folder, Alone(1, 2))
    config = FAMILIES["qwen2"]
    norms = (2 * config.num_hidden_layers + 1) * config.hidden_size
    assert read == (model.config.num_parameters - norms) // 2 + norms
