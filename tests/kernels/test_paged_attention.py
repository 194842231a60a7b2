"""Attention over the paged cache against dense float64 attention."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.execution.kernels.cpu import native
from framework.interfaces.attention import AttentionSpec, BatchLayout
from plugins.attention.paged_cpu import PagedCPU

pytestmark = pytest.mark.usefixtures("native_kernels")

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


def make_spec(**changes):
    float32 = torch.float32
    spec = AttentionSpec(
        device=torch.device("cpu"), dtype=float32, kv_dtype=float32, num_heads=6, num_kv_heads=2, head_size=32,
        block_size=16, num_layers=1, scale=0.2, max_num_seqs=8, max_num_batched_tokens=512, max_model_len=512,
    )  # fmt: skip
    return replace(spec, **changes)


class Cell:
    """Requests with random K and V, a poisoned cache, and the means to run any part of them."""

    def __init__(self, spec, lengths):
        self.spec, self.lengths = spec, lengths
        self.backend = PagedCPU(spec)
        heads = (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)
        self.qkv = [[torch.randn(n, h, spec.head_size).to(spec.dtype) for h in heads] for n in lengths]
        blocks = [-(-n // spec.block_size) for n in lengths]
        ids = torch.randperm(sum(blocks) + 2)[2:].int()  # two blocks stay out of use
        self.tables = ids.split(blocks)
        self.cache = torch.full(self.backend.kv_cache_shape(sum(blocks) + 2), torch.nan, dtype=spec.kv_dtype)

    def run(self, parts, padding=0, write=True):
        """`parts`: (request, first token, end) a row. Returns each row's output."""
        size = self.spec.block_size
        starts, slots, tokens = [0], [], []
        table = torch.full((len(parts), max(map(len, self.tables)) + 1), -7, dtype=torch.int32)
        for row, (request, first, end) in enumerate(parts):
            ids = self.tables[request]
            table[row, : len(ids)] = ids
            slots += [int(ids[p // size]) * size + p % size if write else -1 for p in range(first, end)]
            tokens.append([x[first:end] for x in self.qkv[request]])
            starts.append(starts[-1] + end - first)
        fill = [torch.full((padding, *x.shape[1:]), torch.nan, dtype=x.dtype) for x in tokens[0]]
        q, k, v = (torch.cat([*column, extra]) for column, extra in zip(zip(*tokens, strict=True), fill, strict=True))
        fused = torch.cat((q, k, v), dim=1)  # as the model hands them over: views of one buffer
        q, k, v = fused.split([q.shape[1], k.shape[1], v.shape[1]], dim=1)
        batch = BatchLayout(
            num_rows=len(parts), num_tokens=starts[-1], num_decode_rows=0,
            query_start_R1=torch.tensor(starts, dtype=torch.int32),
            seq_lens_R=torch.tensor([end for _, _, end in parts], dtype=torch.int32),
            block_table_RB=table, slot_mapping_T=torch.tensor(slots + [-1] * padding),
            positions_T=torch.empty(0), query_start_host=starts, seq_lens_host=[end for _, _, end in parts],
        )  # fmt: skip
        out = self.backend.forward(0, q, k, v, self.cache, self.backend.plan(batch))
        assert out.dtype == self.spec.dtype
        assert not out[starts[-1] :].any()
        return list(out[: starts[-1]].split([end - first for _, first, end in parts]))

    def expected(self, request, first, end):
        q, k, v = (x.double() for x in self.qkv[request])
        k, v = (x.to(self.spec.kv_dtype).double() for x in (k, v))
        group = self.spec.num_heads // self.spec.num_kv_heads
        k, v = (x[:end].repeat_interleave(group, dim=1) for x in (k, v))
        scores = torch.einsum("tnh,snh->nts", q[first:end], k) * self.spec.scale
        later = torch.arange(end)[None] > torch.arange(first, end)[:, None]
        return torch.einsum("nts,snh->tnh", scores.masked_fill(later, -torch.inf).softmax(-1), v)

    def check(self, parts, limit=None, **options):
        limit = limit or max(TOLERANCE[self.spec.dtype], TOLERANCE[self.spec.kv_dtype])
        for part, out in zip(parts, self.run(parts, **options), strict=True):
            torch.testing.assert_close(out.double(), self.expected(*part), rtol=limit, atol=limit, msg=str(part))


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=5),
    cuts=st.lists(st.floats(0, 1), min_size=5, max_size=5),
    heads=st.sampled_from([(6, 2), (4, 4), (7, 1), (9, 3)]),
    head_size=st.sampled_from([16, 32, 80]),
    block_size=st.sampled_from([1, 4, 5, 16, 32, 128]),
    dtypes=st.sampled_from([("float32", "float32"), ("bfloat16", "bfloat16"), ("float32", "bfloat16")]),
    padding=st.integers(0, 3),
)  # fmt: skip
def test_mixed_batches(lengths, cuts, heads, head_size, block_size, dtypes, padding):
    spec = make_spec(
        num_heads=heads[0], num_kv_heads=heads[1], head_size=head_size, block_size=block_size,
        dtype=getattr(torch, dtypes[0]), kv_dtype=getattr(torch, dtypes[1]),
    )  # fmt: skip
    cell = Cell(spec, lengths)
    middles = [int(cut * (length - 1)) for cut, length in zip(cuts, lengths, strict=False)]
    if any(middles):
        cell.check([(r, 0, middle) for r, middle in enumerate(middles) if middle], padding=padding)
    cell.check([(r, middle, length) for r, (middle, length) in enumerate(zip(middles, lengths, strict=True))])


def test_chunks_and_batches_change_no_bit():
    whole = Cell(make_spec(), [200, 70])
    expected = whole.run([(0, 0, 200), (1, 0, 70)])
    chunked = Cell(make_spec(), [200, 70])
    chunked.qkv = whole.qkv
    got, first = [], 0
    for end in (1, 17, 18, 83, 84, 199, 200):
        got.append(chunked.run([(0, first, end)])[0])
        first = end
    assert torch.equal(torch.cat(got), expected[0])


def test_padding_writes_nowhere():
    cell = Cell(make_spec(), [20])
    cell.run([(0, 0, 20)], padding=9)
    written = ~cell.cache.isnan()
    assert int(written.sum()) == 2 * 20 * cell.spec.num_kv_heads * cell.spec.head_size


def test_a_token_without_a_slot_is_not_written():
    cell = Cell(make_spec(), [20])
    cell.run([(0, 0, 20)])
    before = cell.cache.clone()
    cell.qkv = Cell(make_spec(), [20]).qkv
    cell.run([(0, 18, 20)], write=False)
    torch.testing.assert_close(cell.cache, before, rtol=0, atol=0, equal_nan=True)


def test_large_scores_do_not_overflow():
    cell = Cell(make_spec(scale=30.0), [90])
    cell.check([(0, 0, 90)], limit=1e-2)  # an fp32 score of 1,000 is only known to 1e-4, and so is its exponential


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": torch.device("cuda")}, "runs on the CPU"),
        ({"dtype": torch.float16}, "only float32 and bfloat16"),
        ({"kv_dtype": torch.float16}, "only float32 and bfloat16"),
        ({"head_size": 40}, "multiple of 16, not 40"),
    ],
)
def test_unsupported(changes, words):
    reason = PagedCPU.unsupported_reason(make_spec(**changes))
    assert words in reason
    assert "choose attention=sdpa" in reason


def test_unsupported_without_a_compiler(monkeypatch):
    assert PagedCPU.unsupported_reason(make_spec()) is None
    monkeypatch.setattr(native, "unavailable_reason", lambda: "no compiler; install one")
    assert "no compiler; install one" in PagedCPU.unsupported_reason(make_spec())
