"""A row whose logits are not finite ends its own request and no other; the record says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from framework.app.experiment import _served
from framework.app.llm import LLM
from framework.execution.step.pick import not_finite_rows
from framework.interfaces.errors import NotFiniteError
from framework.interfaces.records import RequestRecord
from framework.interfaces.sampling_params import SamplingParams

POISONED = 300
PROMPTS = [[5, 9, 11], [8, POISONED], [7, 1, 2, 3], [POISONED, 4]]
OPTIONS: dict[str, Any] = {"max_num_seqs": 4, "max_model_len": 64, "dtype": "float32", "device": "cpu"}


def poison(llm: LLM, value: float = float("nan")) -> None:
    """After this token, the model computes something that is not finite."""
    runner: Any = llm.engine.executor._runner  # type: ignore[attr-defined]
    runner.network.model.embed_tokens.weight.data[POISONED] = value


def params(sampler: str, **values: Any) -> SamplingParams:
    return SamplingParams(
        **{"temperature": 0.0 if sampler == "greedy" else 0.8, "max_tokens": 5, "ignore_eos": True, "seed": 2} | values
    )


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("sampler", ["full", "greedy", "gumbel", "min_p", "typical"])
def test_the_others_go_on(sampler: str, overlap: int) -> None:
    wanted = params(sampler, logprobs=1)
    with LLM("tiny", sampler=sampler, overlap=overlap, **OPTIONS) as llm:
        want = [output.outputs[0].token_ids for output in llm.generate([PROMPTS[0], PROMPTS[2]], wanted)]
        poison(llm)
        first, bad, second, other_bad = llm.generate(PROMPTS, wanted)
        assert [first.outputs[0].token_ids, second.outputs[0].token_ids] == want
        for output in (bad, other_bad):
            assert isinstance(output.error, NotFiniteError)
            assert "not finite" in str(output.error)
            assert "float32" in str(output.error)
            assert output.outputs == []
            assert output.record is not None
            assert (output.record.finish_reason, output.record.error) == ("failed", str(output.error))
        again = [output.outputs[0].token_ids for output in llm.generate([PROMPTS[0], PROMPTS[2]], wanted)]
        assert again == want


def test_one_that_fails_after_some_tokens_keeps_its_count() -> None:
    with LLM("tiny", sampler="full", **OPTIONS) as llm:
        answer = llm.generate([PROMPTS[0]], params("greedy"))[0].outputs[0].token_ids
        runner: Any = llm.engine.executor._runner  # type: ignore[attr-defined]
        runner.network.model.embed_tokens.weight.data[answer[1]] = float("inf")
        bad, good = llm.generate([PROMPTS[0], PROMPTS[2]], [params("greedy"), params("full")])
        assert bad.record is not None
        assert bad.record.num_output_tokens == answer.index(answer[1]) + 1
        assert good.error is None
        with pytest.raises(NotFiniteError):
            llm.generate([PROMPTS[0]], params("greedy"))
        with pytest.raises(NotFiniteError):
            list(llm.stream(PROMPTS[0], params("greedy", ignore_eos=True)))


def test_ranks_that_share_the_vocabulary_agree() -> None:
    """Some token is known to one rank alone, and so is the logit that it makes infinite."""
    with LLM("tiny", sampler="gumbel", tp=2, allreduce="gloo", **OPTIONS) as llm:
        runner: Any = llm.engine.executor._runner  # type: ignore[attr-defined]
        want = llm.generate([PROMPTS[0]], params("full"))[0].outputs[0].token_ids
        head = runner.network.model.lm_head
        assert head.split
        apply = head.apply_linear

        def overflowing(hidden_RD: torch.Tensor) -> torch.Tensor:
            logits_RW = apply(hidden_RD)
            if len(hidden_RD) == 2:
                logits_RW[1, 3] = torch.inf
            return logits_RW

        head.apply_linear = overflowing
        good, bad = llm.generate([PROMPTS[0], PROMPTS[2]], params("full", max_tokens=1))
        head.apply_linear = apply
        assert good.outputs[0].token_ids == want[:1]
        assert isinstance(bad.error, NotFiniteError)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_that_overflow_are_looked_at_again(dtype: torch.dtype) -> None:
    logits_RV = torch.randn(5, 300, generator=torch.Generator().manual_seed(1)).to(dtype)
    logits_RV[0] = torch.finfo(dtype).max  # finite, but not the sum
    logits_RV[2, 7], logits_RV[3, 7], logits_RV[4, 7] = torch.inf, torch.nan, -torch.inf
    assert not_finite_rows(logits_RV).tolist() == [False, False, True, True, True]


def record(reason: str, error: str = "") -> RequestRecord:
    return RequestRecord(
        request_id=0, client="", arrival_s=0.0, scheduled_s=None, first_token_s=None, finish_s=0.0,
        num_prompt_tokens=1, num_output_tokens=0, num_cached_tokens=0, num_preemptions=0, finish_reason=reason,
        error=error,
    )  # fmt: skip


def test_the_reason_of_a_cell_counts_them() -> None:
    done, failed, rejected = record("length"), record("failed", "NaN"), record("rejected", "too long")
    assert _served([done], "") == ("completed", "")
    status, reason = _served([done, failed, failed, rejected], "")
    assert status == "completed"
    assert "1 of 4 requests were rejected, the first because: too long" in reason
    assert "2 of 4 requests failed, the first because: NaN" in reason
    assert _served([failed, failed], "") == ("failed", "served nothing: all 2 requests failed, the first because: NaN")
    assert _served([failed, rejected], "")[0] == "failed"
