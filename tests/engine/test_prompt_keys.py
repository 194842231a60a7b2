"""Prompts by key share exactly what the same prompts by token ids would share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.conformance.kit.invariants import check_invariants
from framework.engine.config import EngineConfig
from framework.engine.engine import Engine
from framework.engine.intake import Intake
from framework.interfaces.cost_model import Deployment, Hardware, ModelShape
from framework.interfaces.graph import GraphLimits
from framework.interfaces.prompt_keys import PromptKeys
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.registry import COST_MODELS, EVICTIONS, GRAPHS, SCHEDULERS
from framework.simulation.executor import SimulatedExecutor
from framework.simulation.shadow_memory import ShadowMemory
from tests.engine import traces  # noqa: F401 (discovers the plugins)

MODEL = ModelShape(
    num_layers=2, hidden_size=64, num_heads=4, num_kv_heads=2, head_size=16, intermediate_size=128, vocab_size=512
)
HARDWARE = Hardware(
    name="none", device_name="none", memory_gib=1, bytes_per_s=1e9, flops_per_s=1e9, kernel_s=1e-6, product_s=0,
    launch_s=1e-6, graph_launch_s=1e-6, capture_s=0, link_bytes_per_s=1e9, link_latency_s=1e-6, source="a test",
)  # fmt: skip
DEPLOYMENT = Deployment(hardware=HARDWARE, model_name="toy", model=MODEL, dtype="bfloat16", kv_dtype="bfloat16")


def engine(block_size: int, num_blocks: int, *, overlap: int = 1, max_num_seqs: int = 4) -> Engine:
    """A simulated engine whose every read is checked."""
    limits = GraphLimits(max_num_seqs=max_num_seqs, max_num_batched_tokens=64, mixed_supported=False)
    executor = SimulatedExecutor(
        COST_MODELS.build({"name": "constant"}, DEPLOYMENT),
        GRAPHS.build({"name": "eager"}),
        limits,
        num_blocks=num_blocks,
        vocab_size=512,
        memory=ShadowMemory(num_blocks, block_size, max_num_seqs),
    )
    intake = Intake(vocab_size=512, max_model_len=num_blocks * block_size, simulated_block_size=block_size)
    return Engine(
        SCHEDULERS.build({"name": "chunked_prefill"}),
        EVICTIONS.build({"name": "lru"}),
        executor,
        intake,
        EngineConfig(
            block_size=block_size,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=64,
            overlap=overlap,
        ),
    )


def tokens_of(keys: list[int], key_tokens: int, num_tokens: int) -> list[int]:
    """Token ids in which equal keys are equal runs of tokens."""
    return [(key * 31 + place * 7 + key * place) % 509 for key in keys for place in range(key_tokens)][:num_tokens]


def serve(served: Engine, prompts: list[dict[str, object]]) -> list[tuple[int, int, int]]:
    """(request, cached tokens, output tokens) of each, with the invariants checked after each step."""
    for prompt in prompts:
        served.add_request(RequestSpec(params=SamplingParams(max_tokens=3, ignore_eos=True), **prompt))  # type: ignore[arg-type]
    found = []
    while served.has_work:
        for output in served.step():
            assert output.record is not None
            found.append((output.request_id, output.record.num_cached_tokens, output.record.num_output_tokens))
        check_invariants(served)
    return sorted(found)


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[list[int], int]]:
    """Keys of prompts that share prefixes, and how many tokens the last key covers."""
    prompts = []
    for _ in range(draw(st.integers(1, 6))):
        keys = draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
        # Equal prefixes of keys only, as a trace of block hashes has it: a key says all that came before it.
        prompts.append(([hash(tuple(keys[: i + 1])) % 10_000 for i in range(len(keys))], draw(st.integers(1, 8))))
    return prompts


@pytest.mark.parametrize("block_size", [4, 8, 16])
@settings(max_examples=25, deadline=None)
@given(prompts=chains(), overlap=st.integers(0, 1))
def test_keys_share_what_tokens_share(block_size: int, prompts: list[tuple[list[int], int]], overlap: int) -> None:
    by_key, by_token = [], []
    for keys, last in prompts:
        num = (len(keys) - 1) * 8 + last
        by_key.append({"prompt_keys": keys, "key_tokens": 8, "num_prompt_tokens": num})
        by_token.append({"prompt_token_ids": tokens_of(keys, 8, num)})
    found = serve(engine(block_size, 512 // block_size, overlap=overlap), by_key)
    # Outputs of prompts by key are not shared; three tokens never fill a block that another prompt would ask for.
    assert found == serve(engine(block_size, 512 // block_size, overlap=overlap), by_token)


def test_a_prompt_without_keys_shares_nothing() -> None:
    prompt = {"prompt_keys": (), "num_prompt_tokens": 40}
    served = engine(8, 32)
    assert [cached for _, cached, _ in serve(served, [prompt]) + serve(served, [prompt])] == [0, 0]
    assert served.cache.num_cached_unheld == 0


def test_a_preempted_prompt_by_key_recomputes_its_outputs() -> None:
    served = engine(4, 16, max_num_seqs=4)
    prompts = [{"prompt_keys": [i, 10 + i, 20 + i], "key_tokens": 4, "num_prompt_tokens": 12} for i in range(4)]
    for prompt in prompts:
        served.add_request(RequestSpec(params=SamplingParams(max_tokens=20, ignore_eos=True), **prompt))  # type: ignore[arg-type]
    records = []
    while served.has_work:
        records += [output.record for output in served.step()]
        check_invariants(served)
    assert sum(record.num_preemptions for record in records if record) > 0
    assert [record.num_output_tokens for record in records if record] == [20] * 4


def test_sizes_that_do_not_line_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"512 tokens do not line up with engine.block_size=48.*set engine.block_size"):
        PromptKeys.of([1], key_tokens=512, block_size=48, num_prompt=500)
    with pytest.raises(ValueError, match="100 tokens has 2 keys of 512 tokens each; at most 1"):
        PromptKeys.of([1, 2], key_tokens=512, block_size=16, num_prompt=100)


def test_an_engine_with_a_model_wants_tokens() -> None:
    intake = Intake(vocab_size=10, max_model_len=100)
    with pytest.raises(ValueError, match="a model needs tokens: use executor=simulated"):
        intake.build(0, RequestSpec(num_prompt_tokens=8, prompt_keys=[1], key_tokens=8), arrival_s=0.0)


def test_long_prompts_by_key_stay_small() -> None:
    served = engine(512, 256)
    served.add_request(
        RequestSpec(
            params=SamplingParams(max_tokens=1), prompt_keys=range(24), key_tokens=512, num_prompt_tokens=12_000
        )
    )
    assert len(served.queue.waiting[0].token_ids) == 0
