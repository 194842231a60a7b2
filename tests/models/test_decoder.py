"""Logits of tiny random models of each family equal those of `transformers` on the same files (fp32)."""

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from framework.models.loading.load import load_model
from tests.layers.thread_group import run_ranks
from tests.models.dense_forward import attend, logits

SHAPE = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
CASES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama3_tied": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama_biases": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    "llama_linear": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": LINEAR}),
    "llama_dynamic": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": DYNAMIC}),
    "qwen2_tied": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen2_yarn": (Qwen2ForCausalLM, Qwen2Config, {"rope_parameters": YARN}),
    "qwen3_tied": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3_yarn": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16, "rope_parameters": YARN}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": None, "head_dim": 16}),
    "mistral_wide_window": (MistralForCausalLM, MistralConfig, {"sliding_window": 64}),
}
TOKENS = torch.randint(0, 131, (60,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.fixture(params=CASES)
def checkpoint(request, tmp_path):
    """Reference logits and folder. Norms and biases are random too: as ones and zeros they would hide mistakes."""
    model_class, config_class, changes = CASES[request.param]
    torch.manual_seed(0)
    model = model_class(config_class(**{**SHAPE, **changes})).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.3)
    model.save_pretrained(tmp_path, max_shard_size="60KB" if "tied" in request.param else "1GB")
    with torch.inference_mode():
        return model(torch.tensor([TOKENS])).logits[0], tmp_path


def load(folder, group=None):
    return load_model(
        {"path": str(folder), "weights": "auto"}, device=torch.device("cpu"), dtype=torch.float32, group=group
    )


def test_logits_equal_transformers(checkpoint):
    expected, folder = checkpoint
    loaded = load(folder)
    assert loaded.tokenizer is None
    torch.testing.assert_close(logits(loaded.model, TOKENS), expected, rtol=1e-4, atol=1e-4)
    assert loaded.config.num_parameters == sum(p.numel() for p in set(loaded.model.parameters())) - padding(loaded)


def padding(loaded):
    """Rows that pad the vocabulary, and query and key norms kept once per head instead of once."""
    config, model = loaded.config, loaded.model
    rows = model.embed_tokens.weight.shape[0] - config.vocab_size
    heads = (config.num_heads + config.num_kv_heads - 2) if config.qk_norm else 0
    copies = 1 if config.tie_embeddings else 2
    return rows * config.hidden_size * copies + config.num_layers * heads * config.head_size


@pytest.mark.parametrize("checkpoint", ["qwen2_tied", "qwen3_yarn", "llama_biases"], indirect=True)
def test_two_ranks_equal_transformers(checkpoint):
    expected, folder = checkpoint

    def rank(group):
        model = load(folder, group).model
        assert (model.num_heads, model.num_kv_heads) == (2, 1)
        return model.compute_logits(model(torch.tensor(TOKENS), torch.arange(len(TOKENS)), attend))

    for result in run_ranks(2, rank):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("checkpoint", ["llama3_tied"], indirect=True)
def test_every_product_goes_through_a_replaceable_kernel(checkpoint):
    expected, folder = checkpoint
    model = load(folder).model
    layers = dict(model.linear_layers())
    assert len(layers) == 3 * 4 + 1
    assert list(layers)[-1] == "lm_head"
    calls = []
    for name, layer in layers.items():
        weight = layer.weight.clone()
        layer.kernel = lambda x, name=name, weight=weight: calls.append(name) or x @ weight.T
    torch.testing.assert_close(logits(model, TOKENS), expected, rtol=1e-4, atol=1e-4)
    assert sorted(calls) == sorted(layers)


@pytest.mark.parametrize("checkpoint", ["llama_dynamic"], indirect=True)
def test_dynamic_ntk_continues_past_the_original_length_like_transformers(checkpoint):
    _, folder = checkpoint
    reference = LlamaForCausalLM.from_pretrained(folder).eval()
    config_length, total = 64, 90
    tokens, cache, expected = TOKENS + TOKENS[:30], None, []
    with torch.inference_mode():
        for token in tokens:
            out = reference(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            expected.append(out.logits[0, 0])
    loaded = load(folder)
    assert loaded.model.max_model_len == 2 * config_length
    result = logits(loaded.model, tokens[:total])
    torch.testing.assert_close(result, torch.stack(expected[:total]), rtol=1e-3, atol=1e-3)
