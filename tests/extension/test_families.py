"""A family of a third party is one file: it runs on one rank and on two, is simulated, and a mistake in it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from framework.app.build import build
from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.conformance.kit.tiny_model import TINY, expected, make_model, serve
from framework.execution.kernels.cuda.applies import unfused_reason
from framework.models.config import ModelConfig
from framework.models.layers.group import TensorParallelGroup
from framework.models.loading.load import load_model
from framework.registry.discovery import discover
from tests.layers.thread_group import run_ranks
from tests.models.dense_forward import logits

MINE = '''
from framework.models.family import Family
from framework.registry import FAMILIES


@FAMILIES.register("mine")
class Mine(Family):
    """Llama whose blocks add half of what they compute."""

    architecture = "MineForCausalLM"

    def traits(self, values):
        return {"residual_scale": 0.5}
'''
WIDE = '''
from framework.models.family import Family
from framework.registry import FAMILIES


@FAMILIES.register("wide")
class Wide(Family):
    """Llama whose feed-forward blocks are a product and a bias."""

    architecture = "WideForCausalLM"

    def traits(self, values):
        return {"own_parameters": values["num_hidden_layers"] * values["hidden_size"] * (
            values["hidden_size"] + 1 - 3 * values["intermediate_size"])}

    def mlp(self, config, index, *, place):
        from torch import nn

        from framework.models.layers.linear import RowParallelLinear
        from framework.models.layers.weight_slot import linear_slots

        class Product(nn.Module):
            def __init__(self):
                super().__init__()
                self.product = RowParallelLinear(config.hidden_size, config.hidden_size, bias=True, place=place)

            def forward(self, hidden_TD):
                size = hidden_TD.shape[1] // place.group.size
                start = place.group.rank * size
                return self.product(hidden_TD[:, start : start + size])

            def slots(self):
                return linear_slots("mlp.product", self.product, True)

        return Product()
'''


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    for name, text in (("mine", MINE), ("wide", WIDE)):
        (tmp_path / f"{name}.py").write_text(text)
    return {name: tmp_path / f"{name}.py" for name in ("mine", "wide")}


def test_it_runs_and_is_simulated(files: dict[str, Path], tmp_path: Path) -> None:
    plugins = f"plugins=[{files['mine']}]"
    granite = transformers.AutoConfig.for_model("granite", **TINY, residual_multiplier=0.5, attention_multiplier=0.25)
    model = make_model(granite)
    model.save_pretrained(tmp_path / "model")
    values = {**granite.to_dict(), "architectures": ["MineForCausalLM"], "model_type": "mine"}
    (tmp_path / "model/config.json").write_text(json.dumps(values))
    for one in serve(tmp_path / "model", plugins, "attention=sdpa"):
        assert one.token_ids == expected(model, one)[0]
    cfg = compose(
        [plugins, "model=custom", f"model.path={tmp_path / 'model'}", "executor=simulated", "workload=synthetic"]
    )
    built = build(settings_of(cfg))
    assert built.model_config.family == "mine"
    assert built.model_config.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    built.engine.close()


def test_every_rank_builds_its_layers(files: dict[str, Path]) -> None:
    discover([str(files["wide"])])  # as a worker does before it builds
    cfg = {"weights": "random", "config": {**TINY, "architectures": ["WideForCausalLM"]}}
    ids = list(range(0, 120, 7))

    def rank(group: TensorParallelGroup) -> torch.Tensor:
        model = load_model(cfg, device=torch.device("cpu"), dtype=torch.float32, group=group).model
        assert model.layers[0].slots()["mlp.product.bias"].full_shape == (64,)
        return logits(model, ids)

    whole = rank(TensorParallelGroup())
    for result in run_ranks(2, rank):
        torch.testing.assert_close(result, whole, rtol=1e-4, atol=1e-4)


def test_fused_kernels_know_it_by_its_layers(files: dict[str, Path]) -> None:
    discover(map(str, files.values()))
    reasons = {}
    for name in ("Llama", "Qwen3", "SeedOss", "Mine", "Wide", "Glm4", "Olmo2", "SmolLM3", "Granite"):
        config = ModelConfig.from_hf({**TINY, "architectures": [f"{name}ForCausalLM"], "embedding_multiplier": 3.0})
        reasons[name] = unfused_reason(config)
    assert reasons["Llama"] is reasons["Qwen3"] is reasons["SeedOss"] is None
    assert reasons["Mine"] == "the model has blocks times 0.5, which the fused kernels lack"
    assert reasons["Wide"] == "family wide builds its mlp itself"
    assert reasons["Granite"] == "the model has an embedding times 3.0, which the fused kernels lack"
    assert all(reasons[name] for name in ("Glm4", "Olmo2", "SmolLM3"))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (MINE.replace('    architecture = "MineForCausalLM"\n', ""), "Mine must name its `architecture`"),
        (MINE.replace("residual_scale", "residual_scales"), "sets residual_scales, which ModelConfig lacks"),
        (MINE.replace("MineFor", "LlamaFor"), "the families llama .* and mine .* both have the architecture Llama"),
        (
            MINE.replace("    def traits", "    def __init__(self, *, size: int = 1): ...\n\n    def traits"),
            "no parameters",
        ),
    ],
)
def test_a_mistake_is_named(broken: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(broken)

    def read() -> None:
        discover([str(tmp_path / "broken.py")])
        ModelConfig.from_hf({**TINY, "architectures": ["MineForCausalLM"]})

    with pytest.raises(ValueError, match=said):
        read()
