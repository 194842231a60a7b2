"""Random weights: no files, and the same model for every dtype and tensor-parallel size."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from framework.models.loading.load import load_config, load_model, load_tokenizer
from tests.layers.thread_group import run_ranks
from tests.models.dense_forward import attend, logits

PRESETS = Path(__file__).parents[2] / "conf" / "model"
SHAPES = sorted(path.stem for path in PRESETS.glob("*.yaml") if OmegaConf.load(path).config)
TOKENS = list(range(40, 90))


def preset(name="tiny", **changes):
    return OmegaConf.merge(OmegaConf.load(PRESETS / f"{name}.yaml"), changes)


def load(group=None, dtype=torch.float32, **changes):
    return load_model(preset(**changes), device=torch.device("cpu"), dtype=dtype, group=group)


def test_a_seed_names_one_model():
    first, again, other = load(), load(), load(seed=1)
    for (name, a), b, c in zip(
        first.model.named_parameters(), again.model.parameters(), other.model.parameters(), strict=True
    ):
        assert torch.equal(a, b), name
        assert torch.equal(a, c) == ("norm" in name), name
    assert first.source == "random(seed=0)"
    assert first.eos_token_ids == (258,)


def test_dtypes_differ_by_rounding_only():
    for full, half in zip(load().model.parameters(), load(dtype=torch.bfloat16).model.parameters(), strict=True):
        assert torch.equal(full.bfloat16(), half)


def test_scale_and_norms():
    model = load(config={"initializer_range": 0.05}).model
    assert model.lm_head.weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert (model.norm.weight == 1).all()


def test_two_ranks_hold_the_same_model():
    expected = logits(load().model, TOKENS)

    def rank(group):
        model = load(group).model
        return model.compute_logits(model(torch.tensor(TOKENS), torch.arange(len(TOKENS)), attend))

    for result in run_ranks(2, rank):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_tiny_depends_on_its_whole_context():
    model = load().model
    changed = logits(model, [41, *TOKENS[1:]])[-1]
    assert (changed - logits(model, TOKENS)[-1]).abs().max() > 1e-3


def test_config_alone_follows_a_local_folder_before_the_preset(tmp_path):
    values = OmegaConf.to_container(preset().config) | {"num_hidden_layers": 7}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert load_config(preset(path=str(tmp_path), weights="auto")).num_layers == 7
    assert load_config(preset("qwen3_8b")).num_layers == 36  # a hub id: no download for it


@pytest.mark.parametrize("name", SHAPES)
def test_presets_share_their_keys_and_need_no_files_when_random(name):
    cfg = preset(name)
    assert list(cfg) == ["name", "path", "weights", "seed", "revision", "tokenizer", "config"]
    assert cfg.name == name
    cfg = OmegaConf.merge(cfg, {"weights": "random", "config": {"num_hidden_layers": 1}})
    assert load_config(cfg).num_layers == 1
    tokenizer = load_tokenizer(cfg)
    assert tokenizer.decode(tokenizer.encode("héllo")) == "héllo"
