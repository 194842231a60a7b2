"""A seed of any 64 bits reaches the device as it is, whatever is admitted with it."""

from __future__ import annotations

from array import array

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.app.llm import LLM
from framework.execution.step.device_state import DeviceState
from framework.interfaces.executor import Admission, StepBatch
from framework.interfaces.sampling_params import SamplingParams

SEEDS = st.one_of(
    st.integers(0, 2**64 - 1), st.sampled_from([0, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1]), st.none()
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1) | SEEDS.filter(lambda seed: seed is not None), min_size=1, max_size=5))
def test_all_bits_arrive(seeds: list[int]) -> None:
    state = DeviceState(num_slots=5, max_model_len=4, block_size=4, device=torch.device("cpu"))
    batch = StepBatch(step=0, num_tokens=0, num_decode_rows=0, row_tokens=[])
    for slot, seed in enumerate(seeds):
        batch.admissions.append(Admission(slot, slot, array("i", [1]), 1, SamplingParams(seed=seed), seed))
    state.apply(batch)
    assert [seed % 2**64 for seed in state.seed_S[: len(seeds)].tolist()] == seeds


def test_a_large_seed_changes_no_neighbour_and_is_not_rounded() -> None:
    def params(seed: int) -> SamplingParams:
        return SamplingParams(temperature=1.5, seed=seed, max_tokens=12, ignore_eos=True)

    seeds = [7, 2**53 + 1, 2**63 + 1, 2**63 + 2, 2**64 - 1]
    with LLM("tiny", max_num_seqs=5, max_model_len=32, threads=1) as llm:
        alone = [llm.generate([5, 6], params(seed))[0].outputs[0].token_ids for seed in seeds]
        together = llm.generate([[5, 6]] * len(seeds), [params(seed) for seed in seeds])
    assert [output.outputs[0].token_ids for output in together] == alone
    assert len({tuple(tokens) for tokens in alone}) == len(seeds)
