"""Two ranks after an interrupt or a step that failed: right tokens, or an engine that says that it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framework.app.llm import LLM
from framework.interfaces.errors import EngineEndedError, RequestCutOffError
from framework.interfaces.sampling_params import SamplingParams
from tests.faults.inject import HOST, ROOT, fault_at

FOLDERS = (*HOST, str(ROOT / "framework/execution/parallel"), str(ROOT / "framework/execution/rank/local.py"))
PROMPTS = [[*range(40, 72), number] for number in range(3)]
PARAMS = SamplingParams(temperature=0.8, seed=2**63 + 5, max_tokens=8, ignore_eos=True)


def start(overlap: int) -> LLM:
    return LLM("tiny", tp=2, overlap=overlap, max_num_seqs=2, max_model_len=64, num_blocks=12, device="cpu")


class Ranks:
    """An `LLM` that is started again when it has ended."""

    def __init__(self, overlap: int) -> None:
        self.overlap, self.llm = overlap, start(overlap)
        self.want = self.tokens()

    def tokens(self) -> list[list[int]]:
        return [output.outputs[0].token_ids for output in self.llm.generate(PROMPTS, PARAMS)]

    def restart(self) -> None:
        self.llm.close()
        self.llm = start(self.overlap)


@pytest.fixture(params=[0, 1], ids=["overlap0", "overlap1"])
def ranks(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    ranks = Ranks(request.param)
    yield ranks
    ranks.llm.close()


def test_interrupts_anywhere_and_a_step_that_fails(ranks: Ranks) -> None:
    @settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(line=st.integers(0, 4000), taken=st.integers(0, 3))
    def interrupted(line: int, taken: int) -> None:
        llm = ranks.llm
        stream = llm.stream(PROMPTS[0], PARAMS)
        got = [token for _ in range(taken) for token in next(stream).token_ids]
        try:
            with fault_at(line, KeyboardInterrupt(), FOLDERS):
                llm.generate(PROMPTS, PARAMS)
        except KeyboardInterrupt:
            pass
        try:
            got += [token for chunk in stream for token in chunk.token_ids]
            assert got == ranks.want[0]
            assert ranks.tokens() == ranks.want
        except RequestCutOffError:
            assert got == ranks.want[0][: len(got)]
            assert ranks.tokens() == ranks.want
        except (EngineEndedError, RuntimeError) as error:
            assert "the ranks are not at the same step any more, after" in str(error)  # noqa: PT017
            ranks.restart()

    interrupted()
    runner: Any = ranks.llm.engine.executor._runner  # type: ignore[attr-defined]

    def raises(*_: object) -> None:
        raise ArithmeticError("rank 0 went wrong")

    runner.network.compute_logits = raises
    with pytest.raises(ArithmeticError, match="rank 0 went wrong"):
        ranks.llm.generate(PROMPTS, PARAMS)
    with pytest.raises(EngineEndedError, match=r"not at the same step .* rank 0 went wrong; build another one"):
        ranks.llm.generate(PROMPTS, PARAMS)
