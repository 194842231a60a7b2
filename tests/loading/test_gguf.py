"""GGUF files: values, names, row order, tokenizer, cache, and what broken ones get."""

import json
import threading

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from framework.models.loading.gguf_convert import converted_folder
from framework.models.loading.load import load_model
from tests.loading.gguf_writer import CHAT_TEMPLATE, HEADS, KV_HEADS, permute, write_gguf
from tests.models.dense_forward import logits


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVELAB_CACHE", str(tmp_path / "cache"))


def load(path, **changes):
    cfg = {"path": str(path), "weights": "auto", **changes}
    return load_model(cfg, device=torch.device("cpu"), dtype=torch.float32)


def tensors_of(folder):
    return {name: t.float() for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_1", "Q8_0"])
def test_values_are_those_of_gguf_dequantize_in_hugging_face_row_order(tmp_path, kind):
    quantisation = GGMLQuantizationType[kind]
    weights = write_gguf(tmp_path / "tiny.gguf", quantisation=quantisation)
    converted = tensors_of(converted_folder(tmp_path / "tiny.gguf"))
    names = {
        "attn_q": ("self_attn.q_proj", HEADS),
        "attn_k": ("self_attn.k_proj", KV_HEADS),
        "ffn_up": ("mlp.up_proj", 0),
    }
    for gguf_name, (hf_name, num_heads) in names.items():
        original = weights[f"blk.1.{gguf_name}.weight"]
        stored = permute(original, num_heads) if num_heads else original
        exact = dequantize(quantize(stored, quantisation), quantisation)
        if num_heads:  # rows are quantised on their own, so undoing the order afterwards is exact
            restored = np.empty_like(exact)
            restored[permute(np.arange(len(exact)), num_heads)] = exact
            exact = restored
        np.testing.assert_array_equal(converted[f"model.layers.1.{hf_name}.weight"].numpy(), exact)
    np.testing.assert_array_equal(converted["model.norm.weight"].numpy(), weights["output_norm.weight"])


@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_transformers_on_the_converted_folder(tmp_path, tied):
    write_gguf(tmp_path / "tiny.gguf", tied=tied, quantisation=GGMLQuantizationType.Q4_1)
    loaded = load(tmp_path / "tiny.gguf")
    assert loaded.config.tie_embeddings == tied
    assert loaded.config.rms_eps == 1e-5
    assert loaded.eos_token_ids == (2,)
    tokens = list(range(3, 80))
    reference = AutoModelForCausalLM.from_pretrained(loaded.source, dtype=torch.float32)
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(logits(loaded.model, tokens), expected, rtol=1e-4, atol=1e-4)


def test_tokenizer_is_rebuilt(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    loaded = load(tmp_path / "tiny.gguf")
    tokenizer = loaded.tokenizer
    text = "hello 12 hell, Grüße 🎉\n\ttab"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    pieces = [tokenizer.backend.id_to_token(i) for i in tokenizer.encode("hello 12<|im_end|>")]
    assert pieces == ["hello", "Ġ", "1", "2", "<|im_end|>"]  # digits stand alone, though "12" is a token
    assert tokenizer.decode(tokenizer.encode("a<|im_end|>")) == "a"
    assert tokenizer.eos_token_ids == (2,)
    messages = [{"role": "user", "content": "hello"}]
    by_transformers = AutoTokenizer.from_pretrained(loaded.source)
    assert by_transformers.chat_template == CHAT_TEMPLATE
    expected = by_transformers.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert tokenizer.apply_chat_template(messages) == expected
    assert by_transformers(text)["input_ids"] == tokenizer.encode(text)


def test_conversion_happens_once_and_follows_the_content(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    first = converted_folder(path)
    stamp = (first / "config.json").stat().st_mtime_ns
    assert converted_folder(path) == first
    assert (first / "config.json").stat().st_mtime_ns == stamp
    write_gguf(path, tied=False)
    assert converted_folder(path) != first


def test_two_conversions_at_once_leave_one_whole_folder(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    folders = []
    threads = [
        threading.Thread(target=lambda: folders.append(converted_folder(tmp_path / "tiny.gguf"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 4
    assert len(set(folders)) == 1
    assert [entry.name for entry in folders[0].parent.iterdir()] == [folders[0].name]
    json.loads((folders[0] / "config.json").read_text())


def test_a_failed_conversion_leaves_nothing(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", extra_tensor="rope_freqs.weight")
    with pytest.raises(ValueError, match=r"tiny.gguf: tensor rope_freqs.weight is not supported"):
        converted_folder(tmp_path / "tiny.gguf")
    assert list((tmp_path / "cache" / "gguf").iterdir()) == []


@pytest.mark.parametrize("keep", [3, 40, 3000, -50])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"tiny.gguf is truncated or not a GGUF file"):
        load(path)


def test_other_architectures_keep_their_row_order_and_their_own_tensors(tmp_path):
    path = tmp_path / "tiny.gguf"
    weights = write_gguf(path, architecture="qwen3")
    converted = tensors_of(converted_folder(path))
    np.testing.assert_array_equal(
        converted["model.layers.0.self_attn.q_proj.weight"].numpy(), weights["blk.0.attn_q.weight"]
    )
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


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SERVELAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"file/gguf can't be written .*SERVELAB_CACHE"):
        converted_folder(tmp_path / "tiny.gguf")
