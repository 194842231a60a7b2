"""Which numbers of ranks a model can be split over."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.execution.rank.choices import choose
from framework.interfaces.errors import IncompatibleError
from framework.models.config import ModelConfig
from framework.models.loading.load import load_config
from framework.models.split import check_split, config_of_rank, possible_sizes
from framework.simulation.build import read_deployment


def hf_values(preset: str, **changes: int) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(compose([f"model={preset}", "tracker=files"]).model.config)
    return values | changes


def config(preset: str, **changes: int) -> ModelConfig:
    return load_config({"weights": "random", "config": hf_values(preset, **changes)})


@pytest.mark.parametrize(
    ("preset", "changes", "sizes"),
    [
        ("qwen3_8b", {}, [1, 2, 4, 8, 16, 32]),  # 32 heads, 8 KV heads, 12,288 features
        ("qwen3_32b", {}, [1, 2, 4, 8, 16, 32, 64]),  # 64 heads, 8 KV heads, 25,600 features
        ("tiny", {"num_key_value_heads": 3, "num_attention_heads": 12, "intermediate_size": 144}, [1, 3, 6, 12]),
        ("tiny", {"intermediate_size": 129}, [1]),
    ],
)
def test_possible_sizes(preset: str, changes: dict[str, int], sizes: list[int]) -> None:
    one = config(preset, **changes)
    assert possible_sizes(one) == sizes
    with pytest.raises(
        IncompatibleError, match=rf"executor.tp=5: .*runs with executor.tp={', '.join(map(str, sizes))}$"
    ):
        check_split(one, 5)


ODD = [
    "model.config.num_attention_heads=12",
    "model.config.num_key_value_heads=4",
    "model.config.intermediate_size=126",
]


@pytest.mark.parametrize(
    ("changes", "tp"),
    [
        ([], 3),  # heads
        (ODD, 6),  # KV heads
        (ODD, 4),  # features, which a simulation took
    ],
)
def test_local_and_simulated_refuse_a_split_in_the_same_words(changes: list[str], tp: int) -> None:
    said = []
    for executor, judge in (("local", choose), ("simulated", read_deployment)):
        with pytest.raises(IncompatibleError) as refused:
            judge(settings_of(compose(["model=tiny", f"executor={executor}", f"executor.tp={tp}", *changes])))
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert said[0].startswith(f"executor.tp={tp}: ")


def test_the_shares_of_all_ranks_make_the_model() -> None:
    one = config("qwen3_8b")
    for size in (2, 4, 8):
        shard = config_of_rank(one, size)
        assert shard.num_heads * size == one.num_heads
        assert shard.matmul_flops_per_token * size == one.matmul_flops_per_token
    assert config_of_rank(one, 16).num_kv_heads == 1  # held twice
    assert config_of_rank(one, 1) == one


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["executor.tp=3"], "executor.tp=3: 4 attention heads do not divide evenly; .*executor.tp=1, 2, 4"),
        (["executor.allreduce=symm_mem"], "executor.allreduce=symm_mem: it sums over GPUs, and this runs on cpu"),
        (["executor.allreduce=nccl", "executor.tp=2"], "executor.allreduce=nccl: it sums over GPUs"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(overrides: list[str], says: str) -> None:
    cfg = compose(["model=tiny", "tracker=files", "executor.device=cpu", *overrides])
    with pytest.raises(IncompatibleError, match=says):
        choose(settings_of(cfg))


@pytest.mark.parametrize(
    "override", ["executor.tp=0", "executor.heartbeat_s=0", "executor.startup_limit_s=-1", "executor.allreduce=mpi"]
)
def test_values_out_of_range_are_refused_at_composition(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(ValueError, match=rf"{key}={value}"):
        compose(["model=tiny", "tracker=files", override])
