"""Each layer split over ranks computes what it computes whole."""

import pytest
import torch
import torch.nn.functional as F

from framework.models.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from framework.models.layers.group import TensorParallelGroup
from framework.models.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
)
from framework.models.layers.placement import Placement
from tests.layers.thread_group import run_ranks

CPU = torch.device("cpu")


def place(group: TensorParallelGroup) -> Placement:
    return Placement(CPU, torch.float32, group)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_column_then_row(size):
    up, up_bias, down, down_bias = torch.randn(16, 8), torch.randn(16), torch.randn(8, 16), torch.randn(8)
    x = torch.randn(3, 8)

    def rank(group):
        first = ColumnParallelLinear(8, 16, bias=True, place=place(group))
        second = RowParallelLinear(16, 8, bias=True, place=place(group))
        first.load("weight", up)
        first.load("bias", up_bias)
        second.load("weight", down)
        second.load("bias", down_bias)
        assert first.weight.shape == (16 // size, 8)
        assert second.weight.shape == (8, 16 // size)
        return second(first(x))

    expected = F.linear(F.linear(x, up, up_bias), down, down_bias)
    for result in run_ranks(size, rank):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2])
def test_merged_columns_keep_each_rank_its_pieces_side_by_side(size):
    gate, up, x = torch.randn(12, 8), torch.randn(12, 8), torch.randn(3, 8)

    def rank(group):
        layer = MergedColumnParallelLinear(8, (12, 12), bias=False, place=place(group))
        layer.load("weight", up, 1)
        layer.load("weight", gate, 0)
        return layer(x).chunk(2, dim=-1)

    results = run_ranks(size, rank)
    for index, weight in enumerate((gate, up)):
        merged = torch.cat([result[index] for result in results], dim=-1)
        torch.testing.assert_close(merged, F.linear(x, weight), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("num_kv_heads", "size"), [(4, 1), (4, 2), (2, 4), (1, 4)])
def test_qkv_gives_each_rank_the_kv_heads_of_its_query_heads(num_kv_heads, size):
    num_heads, head_size = 8, 4
    q = torch.randn(num_heads * head_size, 8)
    k, v = torch.randn(num_kv_heads * head_size, 8), torch.randn(num_kv_heads * head_size, 8)
    x = torch.randn(3, 8)

    def rank(group):
        layer = QKVParallelLinear(8, head_size, num_heads, num_kv_heads, bias=False, place=place(group))
        for shard_id, weight in (("q", q), ("k", k), ("v", v)):
            layer.load("weight", weight, shard_id)
        out = layer(x).view(3, -1, head_size)
        return out.split((layer.num_heads, layer.num_kv_heads, layer.num_kv_heads), dim=1)

    whole_q, whole_k, whole_v = (F.linear(x, w).view(3, -1, head_size) for w in (q, k, v))
    for rank_index, (q_part, k_part, v_part) in enumerate(run_ranks(size, rank)):
        heads = range(rank_index * num_heads // size, (rank_index + 1) * num_heads // size)
        for local, head in enumerate(heads):
            kv_local = local // (len(heads) // k_part.shape[1])
            kv_head = head // (num_heads // num_kv_heads)
            torch.testing.assert_close(q_part[:, local], whole_q[:, head], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(k_part[:, kv_local], whole_k[:, kv_head], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(v_part[:, kv_local], whole_v[:, kv_head], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("vocab_size", [64, 37, 9])
def test_embedding_and_tied_head_pad_the_vocabulary(size, vocab_size):
    weight, token_ids = torch.randn(vocab_size, 8), torch.tensor([0, vocab_size - 1, 3, vocab_size // 2])

    def rank(group):
        embedding = VocabParallelEmbedding(vocab_size, 8, place=place(group))
        embedding.weight.data.fill_(float("nan"))
        embedding.load("weight", weight)
        assert not embedding.weight.isnan().any()  # the padding is defined, for kernels that pack the whole matrix
        head = ParallelLMHead(vocab_size, 8, place=place(group), tied_to=embedding)
        assert head.weight is embedding.weight
        hidden = embedding(token_ids)
        return hidden, head(hidden)

    for hidden, logits in run_ranks(size, rank):
        assert torch.equal(hidden, weight[token_ids])
        torch.testing.assert_close(logits, weight[token_ids] @ weight.T, rtol=1e-5, atol=1e-5)


def test_a_kernel_replaces_the_product_of_every_kind_of_layer():
    group = TensorParallelGroup()
    for layer in (
        ColumnParallelLinear(4, 4, bias=False, place=place(group)),
        RowParallelLinear(4, 4, bias=False, place=place(group)),
        ParallelLMHead(8, 4, place=place(group)),
    ):
        layer.kernel = lambda x: torch.full((x.shape[0], 8), 7.0)
        assert (layer(torch.randn(2, 4)) == 7).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: ColumnParallelLinear(4, 6, bias=False, place=p), "output features=6 can't be split .* tp=4"),
        (lambda p: RowParallelLinear(6, 4, bias=False, place=p), "input features=6"),
        (lambda p: QKVParallelLinear(4, 4, 6, 2, bias=False, place=p), "attention heads=6"),
        (lambda p: QKVParallelLinear(4, 4, 12, 3, bias=False, place=p), "tp=4 ranks can't share 3 KV heads"),
    ],
)
def test_sizes_that_do_not_split_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build(place(TensorParallelGroup(0, 4)))


def test_a_rank_outside_its_group_is_refused():
    with pytest.raises(ValueError, match=r"rank=2 must be in \[0, 2\)"):
        TensorParallelGroup(2, 2)
