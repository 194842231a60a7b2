"""GGUF files: values, names, row order and positions, and what unsupported ones get."""

import gc

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from framework.models.loading.gguf_file import GGUFFile
from framework.models.loading.load import load_model
from tests.loading.gguf_reference import reference_model
from tests.loading.gguf_writer import HEADS, HIDDEN, KV_HEADS, permute, write_gguf
from tests.models.dense_forward import logits

IDS = list(range(3, 80))


def load(path, dtype=torch.float32, **changes):
    return load_model({"path": str(path), **changes}, device=torch.device("cpu"), dtype=dtype)


def expected_logits(path):
    with torch.inference_mode():
        return reference_model(path)(torch.tensor([IDS])).logits[0]


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_values_are_those_of_gguf_dequantize_in_hugging_face_row_order(tmp_path, kind):
    quantisation = GGMLQuantizationType[kind]
    path = tmp_path / "tiny.gguf"
    weights = write_gguf(path, quantisation=quantisation)
    file = GGUFFile(path)
    for name, num_heads in {"blk.1.attn_q": HEADS, "blk.1.attn_k": KV_HEADS, "blk.1.ffn_up": 0}.items():
        original = weights[f"{name}.weight"]
        stored = permute(original, num_heads) if num_heads else original
        exact = dequantize(quantize(stored, quantisation), quantisation)
        if num_heads:  # rows are quantised on their own, so undoing the order afterwards is exact
            restored = np.empty_like(exact)
            restored[permute(np.arange(len(exact)), num_heads)] = exact
            exact = restored
        np.testing.assert_array_equal(file.read(f"{name}.weight"), exact)
    np.testing.assert_array_equal(file.read("output_norm.weight"), weights["output_norm.weight"])


def test_a_tensor_of_many_chunks_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "tiny.gguf"
    weights = write_gguf(path)
    monkeypatch.setattr("framework.models.loading.gguf_file._CHUNK", 3 * HIDDEN)
    np.testing.assert_array_equal(GGUFFile(path).read("blk.0.ffn_up.weight"), weights["blk.0.ffn_up.weight"])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_logits_equal_transformers(tmp_path, tied, architecture):
    path = tmp_path / "tiny.gguf"
    biases = {} if architecture == "llama" else {"attn_q": HIDDEN, "attn_k": HIDDEN // 2, "attn_v": HIDDEN // 2}
    write_gguf(path, architecture=architecture, tied=tied, quantisation=GGMLQuantizationType.Q4_1, biases=biases)
    loaded = load(path)
    assert loaded.config.tie_embeddings == tied
    assert loaded.config.rms_eps == 1e-5
    assert loaded.eos_token_ids == (2,)
    torch.testing.assert_close(logits(loaded.model, IDS), expected_logits(path), rtol=1e-4, atol=1e-4)


def test_nothing_but_the_weights_is_kept_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVELAB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.gguf"
    write_gguf(path, quantisation=GGMLQuantizationType.Q4_1)
    half, full = load(path, torch.bfloat16), load(path)
    gc.collect()
    assert sum(p.nbytes for p in half.model.parameters()) <= 2 * half.config.num_parameters + 16 * 2 * HIDDEN
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.gguf"]
    for narrow, wide in zip(half.model.parameters(), full.model.parameters(), strict=True):
        assert torch.equal(narrow, wide.to(torch.bfloat16))


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_llama_3_1_positions(tmp_path):
    """llama.cpp's converter writes what `transformers`' frequencies are divided by."""
    config = LlamaConfig(
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=128,
        rope_parameters=LLAMA3,
    )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / 10_000.0 ** (torch.arange(0, 16, 2).float() / 16)
    assert (scaled != plain).any()
    path, without = tmp_path / "tiny.gguf", tmp_path / "without.gguf"
    write_gguf(path, rope_divisors=(plain / scaled).numpy())
    write_gguf(without)
    loaded = load(path)
    reference = reference_model(without)
    reference.model.rotary_emb.inv_freq = scaled
    with torch.inference_mode():
        expected = reference(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(logits(loaded.model, IDS), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected_logits(without), expected, atol=1e-2)  # the divisors matter
    assert loaded.config.max_model_len == 128
    write_gguf(path, rope_divisors=np.ones(3))
    with pytest.raises(ValueError, match=r"factors has 3 numbers, but half of what is rotated of a head has 8"):
        load(path)


def test_other_architectures_keep_their_row_order_and_their_own_tensors(tmp_path):
    path = tmp_path / "tiny.gguf"
    weights = write_gguf(path, architecture="qwen3")
    np.testing.assert_array_equal(GGUFFile(path).read("blk.0.attn_q.weight"), weights["blk.0.attn_q.weight"])
    with pytest.raises(ValueError, match=r"tensor model.layers.0.self_attn.q_norm.weight is missing \(and 3 more\)"):
        load(path)


def test_unsupported_files_are_named(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, architecture="gpt2")
    with pytest.raises(ValueError, match=r"tiny.gguf: GGUF architecture 'gpt2' .* llama, qwen2, qwen3"):
        load(path)
    write_gguf(path, skip_tensor="blk.1.ffn_up.weight")
    with pytest.raises(ValueError, match=r"tensor model.layers.1.mlp.up_proj.weight is missing"):
        load(path)
    with pytest.raises(ValueError, match=r"gone.gguf can't be read"):
        load(tmp_path / "gone.gguf")


def test_an_unsupported_tokenizer_can_be_replaced(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, pre_tokenizer="exotic")
    with pytest.raises(
        ValueError, match=r"pre-tokenizer 'exotic' is not supported; supported are smollm.*model.tokenizer"
    ):
        load(path)
    assert load(path, tokenizer="byte").tokenizer.encode("ab") == [64, 65]
    write_gguf(path, tokenizer_model="bert")
    with pytest.raises(ValueError, match=r"tokenizer model 'bert' is not supported"):
        load(path)
