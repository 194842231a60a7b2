"""After a step that failed, or an interrupt, the Python API gives the tokens of an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framework.app.llm import LLM
from framework.conformance.kit.invariants import check_invariants
from framework.interfaces.errors import RequestCutOffError
from framework.interfaces.sampling_params import SamplingParams
from tests.faults.inject import fault_at

SHARED = list(range(40, 88))  # three full blocks
PROMPTS = [[*SHARED, n, n + 1] for n in range(3)] + [[5, 6, 7]]
PARAMS = [
    SamplingParams(temperature=0, max_tokens=10, ignore_eos=True),
    SamplingParams(temperature=1, seed=2**64 - 1, max_tokens=6, ignore_eos=True, logprobs=1),
    SamplingParams(temperature=0.7, seed=3, max_tokens=14, ignore_eos=True),
    SamplingParams(temperature=0, max_tokens=3, ignore_eos=True),
]
STREAMED = [*SHARED, 99]


class Failure(Exception):
    pass


@pytest.fixture(scope="module", params=[0, 1], ids=["overlap0", "overlap1"])
def llm(request: pytest.FixtureRequest) -> Iterator[LLM]:
    with LLM(
        "tiny", overlap=request.param, max_num_seqs=3, max_model_len=96, num_blocks=16, device="cpu", threads=1
    ) as llm:
        yield llm


@pytest.fixture(scope="module")
def want(llm: LLM) -> list[list[int]]:
    return tokens(llm)


def tokens(llm: LLM) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, PARAMS)]


def places(llm: LLM) -> list[tuple[Any, str]]:
    """Parts of a step on the device."""
    runner = llm.engine.executor._runner  # type: ignore[attr-defined]
    return [
        (runner.state, "apply"),
        (runner.network, "forward"),
        (runner.network, "compute_logits"),
        (runner.sampler, "prepare"),
        (runner.sampler, "sample"),
        (runner, "_check_range"),
    ]


few = settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@few
@given(place=st.integers(0, 5), call=st.integers(0, 25), after=st.booleans())
def test_a_step_that_fails_on_the_device(llm: LLM, want: list[list[int]], place: int, call: int, after: bool) -> None:
    owner, name = places(llm)[place]
    real, left = getattr(owner, name), [call]

    def failing(*args: Any, **keywords: Any) -> Any:
        left[0] -= 1
        result = real(*args, **keywords) if after or left[0] != -1 else None
        if left[0] == -1:
            raise Failure(f"{name} failed")
        return result

    setattr(owner, name, failing)
    try:
        outputs = llm.generate(PROMPTS, PARAMS)
    except Exception as error:  # noqa: BLE001 (all of them failed)
        assert "failed" in str(error)  # noqa: PT017
        outputs = []
    finally:
        delattr(owner, name)
    for output, tokens_of_it in zip(outputs, want, strict=False):
        if output.error is None:
            assert output.outputs[0].token_ids == tokens_of_it
        else:
            assert "failed" in str(output.error)
            assert output.record is not None
            assert output.record.finish_reason == "failed"
    assert not llm.engine.has_work
    check_invariants(llm.engine)
    assert tokens(llm) == want


@few
@given(line=st.integers(0, 6000), taken=st.integers(0, 4), is_interrupt=st.booleans())
def test_a_generate_that_is_interrupted_beside_an_open_stream(
    llm: LLM, want: list[list[int]], line: int, taken: int, is_interrupt: bool
) -> None:
    params = SamplingParams(temperature=0.9, seed=7, max_tokens=12, ignore_eos=True)
    (alone,) = llm.generate([STREAMED], params)
    stream = llm.stream(STREAMED, params)
    got = [token for _ in range(taken) for token in next(stream).token_ids]
    error = KeyboardInterrupt() if is_interrupt else MemoryError()
    try:
        with fault_at(line, error) as fault:
            outputs = llm.generate(PROMPTS, PARAMS)
    except BaseException as raised:  # noqa: BLE001
        assert raised is error or raised.__cause__ is error, raised  # noqa: PT017
    else:
        ended = [output for output in outputs if output.error is not None]
        assert not fault.where or not is_interrupt
        assert all(output.error is error or output.error.__cause__ is error for output in ended)  # type: ignore[union-attr]
    try:
        got += [token for chunk in stream for token in chunk.token_ids]
    except (RequestCutOffError, MemoryError):
        assert got == alone.outputs[0].token_ids[: len(got)]
    else:
        assert got == alone.outputs[0].token_ids
    while llm.engine.has_work:  # rows in flight of requests that were aborted
        assert not llm.engine._live, fault.where
        assert llm.engine.step() == []
    check_invariants(llm.engine)
    assert tokens(llm) == want


def test_the_error_of_a_failed_step_is_raised_once_and_to_its_caller(llm: LLM, want: list[list[int]]) -> None:
    sampler = llm.engine.executor._runner.sampler  # type: ignore[attr-defined]
    stream = llm.stream(STREAMED, PARAMS[0])
    next(stream)

    def raises(*_: Any) -> Any:
        raise Failure("no sample today")

    sampler.sample = raises
    try:
        with pytest.raises(Exception, match="no sample today"):
            llm.generate(PROMPTS[0], PARAMS[0])
    finally:
        del sampler.sample
    with pytest.raises(Exception, match="no sample today"):  # it was in that step too
        list(stream)
    assert tokens(llm) == want
