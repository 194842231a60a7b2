"""A whole model before and after `optimize_for_cpu`."""

from dataclasses import replace

import pytest
import torch

from framework.execution.kernels.cpu.linear import NativeLinear
from framework.execution.kernels.cpu.optimize import optimize_for_cpu
from framework.models.config import ModelConfig
from framework.models.decoder import DecoderLM
from framework.models.loading.random_weights import fill_random

pytestmark = pytest.mark.usefixtures("native_kernels")

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],  # has biases
    "model_type": "qwen2",
    "vocab_size": 203,
    "hidden_size": 60,
    "intermediate_size": 92,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
}


def attend(layer, q_TNH, k_TMH, v_TMH):
    """Dense causal attention of one sequence."""
    k_TNH, v_TNH = (x.repeat_interleave(2, dim=1) for x in (k_TMH, v_TMH))
    out = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(0, 1) for x in (q_TNH, k_TNH, v_TNH)), is_causal=True
    )
    return out.transpose(0, 1)


def logits(model):
    token_ids_T = torch.arange(40) * 5
    with torch.inference_mode():
        return model.compute_logits(model(token_ids_T, torch.arange(40), attend))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_logits(dtype, tied):
    config = replace(ModelConfig.from_hf(CONFIG), tie_embeddings=tied, initializer_range=0.1)
    model = DecoderLM(config, device=torch.device("cpu"), dtype=dtype)
    fill_random(model, 0)
    before = logits(model)
    chosen = optimize_for_cpu(model)
    assert chosen["elementwise_kernel"] == "native"
    assert "native_unavailable" not in chosen
    after = logits(model)
    if dtype == torch.float32:
        assert chosen["linear_kernel"] == "native"
        assert all(type(layer.kernel) is NativeLinear for _, layer in model.linear_layers())
        assert torch.equal(before.argmax(-1), after.argmax(-1))
    limit = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(after, before, rtol=limit, atol=limit * float(before.abs().max()))
    held = [name for name, weight in model.named_parameters() if weight.ndim == 2 and weight.device.type != "meta"]
    assert held == ["embed_tokens.weight"]
