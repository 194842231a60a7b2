"""A graph strategy of a third party brings its own way to run steps, without any change of the framework."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from framework.app.llm import LLM
from framework.execution.graphs.cache import GraphCache
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import BatchShape, GraphKey, GraphLimits, GraphScope, GraphStrategy
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.step_runner import StepRunner, StepTokens
from framework.registry import GRAPHS

PROMPTS = [[5, 9, 11, 300, 2], [7], [8, 8, 1]]
PARAMS = [SamplingParams(temperature=t, max_tokens=4, ignore_eos=True, seed=3, logprobs=2) for t in (0, 0.8, 1)]


class Padded:
    """Runs decode steps as eager steps and notes what it is told."""

    def __init__(self, eager: StepRunner) -> None:
        self.eager, self.notes = eager, list[Any]()

    def capture(self, key: GraphKey) -> None:
        self.notes.append(key)

    def run(self, batch: StepBatch, key: GraphKey | None) -> StepTokens:
        self.notes.append(("run", batch.num_tokens, key))
        return self.eager.run(batch, None)

    def slots_changed(self) -> None:
        self.notes.append("slots_changed")

    def release(self) -> None:
        self.notes.append("release")

    def effective(self) -> dict[str, object]:
        return {"padded_steps": sum(note[0] == "run" for note in self.notes if isinstance(note, tuple))}


class OfAThirdParty(GraphStrategy):
    runner: Padded

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        return [GraphKey(limits.max_num_seqs, limits.max_num_seqs)]

    def select(self, shape: BatchShape) -> GraphKey | None:
        return GraphKey(3, 3) if shape.decode_only else None

    def step_runner(self, eager: StepRunner) -> StepRunner:
        type(self).runner = Padded(eager)
        return self.runner


def tokens(**options: Any) -> list[Any]:
    with LLM("tiny", device="cpu", max_num_seqs=3, max_model_len=32, **options) as llm:
        completions = [output.outputs[0] for output in llm.generate(PROMPTS, PARAMS)]
        effective = llm.engine.executor.effective()
        assert effective.get("padded_steps", 0) == (4 if options else 0)  # one of the warm-up
    return [(one.token_ids, one.logprobs) for one in completions]


def test_its_runner_gets_the_steps_that_it_selects() -> None:
    GRAPHS.register("of_a_third_party")(OfAThirdParty)
    want = tokens()
    assert tokens(graph="of_a_third_party") == want
    key, notes = GraphKey(3, 3), OfAThirdParty.runner.notes
    assert notes[0] == key
    assert notes[1:3] == ["slots_changed", ("run", 1, key)]  # the warm-up's prompt ran eager
    assert notes[3:] == ["slots_changed", *[("run", 3, key)] * 3, "release"]


def test_a_runner_of_pieces_owes_no_prompt_log_probabilities() -> None:
    class HiddenAway(Padded):
        """Keeps no hidden states of a prompt."""

        def run(self, batch: StepBatch, key: GraphKey | None) -> StepTokens:
            return dataclasses.replace(super().run(batch, key), prompt_logprobs=None)

    @GRAPHS.register("in_pieces")
    class InPieces(OfAThirdParty):
        scope = GraphScope.PIECES

        def select(self, shape: BatchShape) -> GraphKey | None:
            return GraphKey(3, 3)

        def step_runner(self, eager: StepRunner) -> StepRunner:
            return HiddenAway(eager)

    params = SamplingParams(max_tokens=1, prompt_logprobs=0)
    with LLM("tiny", device="cpu", max_num_seqs=3, max_model_len=32, graph="in_pieces") as llm:
        (output,) = llm.generate([PROMPTS[0]], [params])
    assert output.prompt_logprobs is not None
    assert len(output.prompt_logprobs) == len(PROMPTS[0])


def test_nothing_is_captured_after_the_end() -> None:
    cache = GraphCache(torch.device("cpu"), lambda key, pool: key)
    assert cache.get(GraphKey(2, 2)) == GraphKey(2, 2)
    cache.close()
    cache.close()
    with pytest.raises(AssertionError, match="after the end"):
        cache.get(GraphKey(2, 2))
