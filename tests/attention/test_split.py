"""Which backend gets which rows, and which pairs are refused."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch

from framework.interfaces.attention import AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS
from plugins.attention.sdpa import SDPA
from plugins.attention.split import Split
from tests.attention.cases import Problem, Target, check, layout

MIXED = ((30, 1), (0, 1), (16, 2), (0, 30))


def problem(rows: tuple[tuple[int, int], ...] = MIXED, block_size: int = 16) -> Problem:
    return Problem(Target("split"), torch.float32, 6, 2, 64, block_size, rows, num_padding=2, seed=1)


class Spy(SDPA):
    """Remembers the batches it planned."""

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__(spec)
        self.planned: list[BatchLayout] = []

    def plan(self, batch: BatchLayout) -> Any:
        self.planned.append(batch)
        return super().plan(batch)


class Capturable(Spy):
    graph_support = GraphSupport.MIXED


class HeadsFirst(SDPA):
    """Another layout, whose shape is the same when there are as many KV heads as slots in a block."""

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        return (2, num_blocks, self.spec.num_kv_heads, self.spec.block_size, self.spec.head_size)


class Elsewhere(SDPA):
    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        return f"it needs another machine than {spec.device}"


@pytest.fixture(autouse=True)
def _registered() -> None:
    for cls in (Spy, Capturable, HeadsFirst, Elsewhere):
        ATTENTIONS.register(cls.__name__.lower())(cls)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("prefill", "decode"), [("sdpa", "flex"), ("flex", "sdpa")])
def test_two_backends_continue_each_others_cache(prefill: str, decode: str) -> None:
    check(functools.partial(Split, prefill=prefill, decode=decode), problem())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "num_decode", "num_prefill"), [(MIXED, 2, 2), (((5, 1), (9, 1)), 2, 0), (((0, 7), (3, 2)), 0, 2)]
)
def test_each_backend_gets_its_rows(rows: tuple[tuple[int, int], ...], num_decode: int, num_prefill: int) -> None:
    one = problem(rows)
    split = Split(one.spec, prefill="spy", decode="capturable")
    tables = torch.arange(40).split(10)
    whole = layout(one, tables, [(row, context, context + new) for row, (context, new) in enumerate(rows)])
    split.plan(whole)
    for backend, count in ((split.decode, num_decode), (split.prefill, num_prefill)):
        assert isinstance(backend, Spy)
        assert [batch.num_rows for batch in backend.planned] == ([count] if count else [])
    assert isinstance(split.decode, Spy)
    if not num_prefill:
        assert split.decode.planned[0] is whole
    if num_decode and num_prefill:
        assert isinstance(split.prefill, Spy)
        (decode,), (prefill,) = split.decode.planned, split.prefill.planned
        assert decode.num_decode_rows == decode.num_tokens == len(decode.slot_mapping_T) == num_decode
        assert (prefill.num_decode_rows, prefill.num_tokens, len(prefill.slot_mapping_T)) == (0, 32, 34)
        assert prefill.query_start_host == prefill.query_start_R1.tolist() == [0, 2, 32]
        assert prefill.seq_lens_host == prefill.seq_lens_R.tolist() == [18, 30]
        assert torch.equal(prefill.positions_T, whole.positions_T[2:])
        assert torch.equal(prefill.block_table_RB, whole.block_table_RB[2:])


@pytest.mark.parametrize(
    ("prefill", "decode", "support"),
    [
        ("sdpa", "sdpa", GraphSupport.NEVER),
        ("sdpa", "capturable", GraphSupport.DECODE),
        ("capturable", "sdpa", GraphSupport.NEVER),
        ("capturable", "capturable", GraphSupport.DECODE),
    ],
)
def test_graphs_are_for_decode_rows(prefill: str, decode: str, support: GraphSupport) -> None:
    assert Split(problem().spec, prefill=prefill, decode=decode).graph_support == support


def test_different_layouts_are_refused_even_if_their_shapes_agree() -> None:
    spec = problem(block_size=2).spec
    assert HeadsFirst(spec).kv_cache_shape(9) == SDPA(spec).kv_cache_shape(9)
    for other in (spec, dataclasses.replace(spec, block_size=16)):
        with pytest.raises(ValueError, match=r"prefill=sdpa and decode=headsfirst lay out the KV cache differently"):
            Split(other, prefill="sdpa", decode="headsfirst")
    Split(spec, prefill="headsfirst", decode="headsfirst")


@pytest.mark.parametrize("key", ["prefill", "decode"])
def test_a_backend_that_cannot_run_here_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=rf"attention\.{key}=elsewhere: it needs another machine than cpu"):
        Split(problem().spec, **{key: "elsewhere"})
    with pytest.raises(ValueError, match="attention=nothing does not exist; choose from"):
        Split(problem().spec, **{key: "nothing"})
