"""Checkpoints whose files and config disagree about the LM head, or that were saved without it: as `transformers`."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig

from framework.models.loading.load import load_config, load_model
from tests.models.dense_forward import logits

TOKENS = list(range(3, 30))
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path):
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=5,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    return tmp_path


def load(folder):
    return load_model({"path": str(folder)}, device=torch.device("cpu"), dtype=torch.float32)


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def assert_equals_transformers(folder):
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        expected = reference(torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(logits(load(folder).model, TOKENS), expected, rtol=1e-4, atol=1e-4)


def test_a_head_of_its_own_is_used_whatever_the_config_says(folder):
    rewrite(folder, lambda t: t.update({HEAD: t[EMBEDDING].flip(0).contiguous()}))
    assert not load(folder).config.tie_embeddings
    assert not load_config({"path": str(folder)}).tie_embeddings
    assert_equals_transformers(folder)


def test_a_copy_of_the_embedding_stays_tied(folder):
    rewrite(folder, lambda t: t.update({HEAD: t[EMBEDDING].clone()}))
    assert load(folder).config.tie_embeddings
    assert_equals_transformers(folder)


def test_an_embedding_saved_under_the_name_of_the_head(folder):
    rewrite(folder, lambda t: t.update({HEAD: t.pop(EMBEDDING)}))
    assert_equals_transformers(folder)


def test_a_single_file_comes_before_an_index(folder):
    other = {name: torch.zeros_like(tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(other, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(other, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_equals_transformers(folder)


def test_a_base_model_is_the_same_network(folder, tmp_path):
    base = tmp_path / "base"
    AutoModel.from_pretrained(folder).save_pretrained(base)
    assert "embed_tokens.weight" in load_file(base / "model.safetensors")
    assert json.loads((base / "config.json").read_text())["architectures"] == ["LlamaModel"]
    assert_equals_transformers(base)
    untied = json.loads((base / "config.json").read_text()) | {"tie_word_embeddings": False}
    (base / "config.json").write_text(json.dumps(untied))
    with pytest.raises(ValueError, match=r"lm_head.weight is missing.*base model.*ForCausalLM"):
        load(base)
    shutil.rmtree(base)
