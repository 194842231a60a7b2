"""The best token over all shares of a vocabulary is the one that the whole vocabulary gives."""

import pytest
import torch

from framework.execution.step.pick import pick_tokens
from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.models.layers.embedding import ParallelLMHead
from framework.models.layers.group import TensorParallelGroup
from framework.models.layers.placement import Placement
from framework.registry import SAMPLERS, discovery
from tests.layers.thread_group import run_ranks

CPU = torch.device("cpu")
VOCAB, ROWS = 203, 16

discovery.discover()
SHARDING = [entry.name for entry in SAMPLERS.entries() if entry.cls is not None and entry.cls.can_shard]


def tokens(name: str, logits_RV: torch.Tensor, params: list[SamplingParams], group: TensorParallelGroup) -> list[int]:
    """The head's weight is the logits themselves, so that its own split decides who has which."""
    head = ParallelLMHead(VOCAB, ROWS, place=Placement(CPU, torch.float32, group))
    head.load("weight", logits_RV.T.contiguous())
    sampler: Sampler = SAMPLERS.build({"name": name}, VOCAB, CPU)
    head.split = head.can_split and sampler.can_shard
    history = TokenHistory.of_rows(
        token_ids_RL=torch.zeros(ROWS, 0, dtype=torch.int32),
        num_prompt_R=torch.ones(ROWS, dtype=torch.int64),
        num_tokens_R=torch.ones(ROWS, dtype=torch.int64),
    )
    seeds, positions = torch.arange(ROWS) * 7919, torch.arange(ROWS) + 5
    given = head(torch.eye(ROWS))
    assert given.shape[1] == VOCAB or (group.size > 1 and head.split)
    if head.split:
        assert torch.equal(head.gather(given), logits_RV)
    return pick_tokens(head, sampler, given.clone(), sampler.prepare(params), seeds, positions, history).tolist()


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("name", SHARDING)
def test_every_rank_finds_the_token_of_one(name: str, temperature: float, size: int) -> None:
    params = [SamplingParams(temperature=temperature if row % 4 else 0.0) for row in range(ROWS)]
    if any(SAMPLERS.get(name).unsupported_reason(one) for one in params):
        pytest.skip(f"{name} takes no temperature")
    logits_RV = torch.randn(ROWS, VOCAB, generator=torch.Generator().manual_seed(1))
    logits_RV[0] = -logits_RV[0].abs() - 1  # the zeros that pad the last share must not win
    expected = tokens(name, logits_RV, params, TensorParallelGroup())
    for result in run_ranks(size, lambda group: tokens(name, logits_RV, params, group)):
        assert result == expected


@pytest.mark.parametrize("name", SHARDING)
def test_the_lowest_id_among_equals(name: str) -> None:
    logits_RV = torch.zeros(ROWS, VOCAB)
    logits_RV[:, [50, 150, 180]] = 3.0
    for result in run_ranks(2, lambda group: tokens(name, logits_RV, [SamplingParams(temperature=0)] * ROWS, group)):
        assert result == [50] * ROWS


def test_a_rank_without_tokens_rules_the_exchange_out() -> None:
    def can_split(group: TensorParallelGroup) -> bool:
        return ParallelLMHead(9, 4, place=Placement(CPU, torch.float32, group)).can_split

    assert run_ranks(2, can_split) == [True, True]  # 8 and 1
    assert run_ranks(4, can_split) == [False] * 4  # 8, 1, none, none
