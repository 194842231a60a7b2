"""Backends of packages that no test machine has, over stand-ins that follow the packages' documented arguments.

They have not run on a device: what is tested is what each hands over, and its refusals.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from framework.registry import ATTENTIONS
from framework.registry.discovery import discover
from tests.attention.cases import Problem, Target, check, oracle
from tests.triton_interpreter import INTERPRETED

NAMES = ("flash4", "flashinfer")
ROWS = ((40, 1), (0, 1), (15, 1), (16, 2), (0, 30), (17, 9))


def attend(q_TNH: torch.Tensor, kv: Any, starts: list[int], rows: list[torch.Tensor], scale: float) -> torch.Tensor:
    """Row by row; `rows` are the cache slots of each context."""
    k_SMH, v_SMH = (cache.flatten(0, 1) for cache in kv)
    parts = []
    for row, slots in enumerate(rows):
        q = q_TNH[starts[row] : starts[row + 1]].double().numpy()
        parts.append(oracle(q, k_SMH[slots].double().numpy(), v_SMH[slots].double().numpy(), scale))
    return torch.from_numpy(np.concatenate(parts)).to(q_TNH.dtype)


def slots_of(blocks: torch.Tensor, length: int, block_size: int) -> torch.Tensor:
    position = torch.arange(length)
    return blocks.long()[position // block_size] * block_size + position % block_size


class Wrapper:
    """flashinfer.BatchPrefillWithPagedKVCacheWrapper, as documented for 0.7."""

    def __init__(self, workspace: torch.Tensor, kv_layout: str) -> None:
        assert workspace.dtype == torch.uint8
        assert kv_layout == "NHD"

    def plan(
        self, qo_indptr: torch.Tensor, paged_kv_indptr: torch.Tensor, paged_kv_indices: torch.Tensor,
        paged_kv_last_page_len: torch.Tensor, num_qo_heads: int, num_kv_heads: int, head_dim_qk: int, page_size: int,
        *, causal: bool, sm_scale: float, q_data_type: torch.dtype, kv_data_type: torch.dtype,
    ) -> None:  # fmt: skip
        for one in (qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len):
            assert one.dtype == torch.int32
        assert causal
        assert int(paged_kv_indptr[-1]) == len(paged_kv_indices)
        self.starts, self.scale = qo_indptr.tolist(), sm_scale
        self.rows = []
        for row, last in enumerate(paged_kv_last_page_len.tolist()):
            assert 1 <= last <= page_size
            blocks = paged_kv_indices[paged_kv_indptr[row] : paged_kv_indptr[row + 1]]
            self.rows.append(slots_of(blocks, (len(blocks) - 1) * page_size + last, page_size))
        self.shape = (num_qo_heads, num_kv_heads, head_dim_qk)

    def run(self, q: torch.Tensor, paged_kv_cache: Any) -> torch.Tensor:
        assert (q.shape[1], paged_kv_cache[0].shape[2], q.shape[2]) == self.shape
        return attend(q, paged_kv_cache, self.starts, self.rows, self.scale)


def flash_attn_varlen_func(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, cu_seqlens_q: torch.Tensor, seqused_k: torch.Tensor,
    max_seqlen_q: int, max_seqlen_k: int, page_table: torch.Tensor, softmax_scale: float, causal: bool, num_splits: int,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """flash_attn.cute.flash_attn_varlen_func, as of 4.0.0b36."""
    assert causal
    assert page_table.dtype == cu_seqlens_q.dtype == seqused_k.dtype == torch.int32
    assert page_table.stride(-1) == 1
    assert page_table.shape[0] == len(seqused_k)
    starts, lengths = cu_seqlens_q.tolist(), seqused_k.tolist()
    assert max_seqlen_q == max(np.diff(starts))
    assert max_seqlen_k == max(lengths)
    rows = [slots_of(page_table[row], length, k.shape[1]) for row, length in enumerate(lengths)]
    return attend(q, (k, v), starts, rows, softmax_scale), None


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    discover()
    flashinfer, flash_attn, cute = ModuleType("flashinfer"), ModuleType("flash_attn"), ModuleType("flash_attn.cute")
    flashinfer.BatchPrefillWithPagedKVCacheWrapper = Wrapper  # type: ignore[attr-defined]
    cute.flash_attn_varlen_func = flash_attn_varlen_func  # type: ignore[attr-defined]
    for module in (flashinfer, flash_attn, cute):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.skipif(not INTERPRETED, reason="needs triton and no CUDA device")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_padding", [0, 2])
def test_hands_over_what_the_package_documents(name: str, num_padding: int) -> None:
    problem = Problem(Target(name), torch.float32, 4, 2, 16, 8, ROWS, num_padding=num_padding, seed=1)
    check(ATTENTIONS.get(name), problem)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": torch.device("cpu")}, "runs on CUDA GPUs, not on cpu; choose attention=sdpa"),
        ({"dtype": torch.float32, "kv_dtype": torch.float32}, "wants bfloat16 or float16 .*torch.float32"),
        ({"kv_dtype": torch.float8_e4m3fn}, "a cache of torch.float8_e4m3fn"),
        ({"head_size": 36}, "needs a head size of .*, not 36"),
    ],
)
def test_refuses(name: str, change: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    spec = Problem(Target(name, "cuda"), torch.bfloat16, 4, 2, 64, 16, ROWS, num_padding=0, seed=1).spec
    unsupported = ATTENTIONS.get(name).unsupported_reason
    assert unsupported(spec) is None
    assert re.search(reason, unsupported(dataclasses.replace(spec, **change)))


@pytest.mark.parametrize(("name", "package"), [("flash4", "flash-attn-4"), ("flashinfer", "flashinfer-python")])
def test_names_the_package_that_is_missing(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    spec = Problem(Target(name, "cuda"), torch.bfloat16, 4, 2, 64, 16, ROWS, num_padding=0, seed=1).spec
    assert package in ATTENTIONS.get(name).unsupported_reason(spec)
