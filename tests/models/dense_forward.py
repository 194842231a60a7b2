"""A model run without a KV cache: the whole sequence, plain causal attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from framework.models.decoder import DecoderLM


def attend(layer: int, q_TNH: torch.Tensor, k_TMH: torch.Tensor, v_TMH: torch.Tensor) -> torch.Tensor:
    """Dense causal attention of one sequence."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q_TNH, k_TMH, v_TMH))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)


@torch.inference_mode()
def logits(model: DecoderLM, token_ids: list[int]) -> torch.Tensor:
    """[T, V] of every position."""
    hidden_TD = model(torch.tensor(token_ids), torch.arange(len(token_ids)), attend)
    return model.compute_logits(hidden_TD)


def greedy(model: DecoderLM, token_ids: list[int], num_tokens: int, eos: tuple[int, ...] = ()) -> list[int]:
    """Greedy continuation, up to and including an end-of-sequence token."""
    output: list[int] = []
    while len(output) < num_tokens and not (output and output[-1] in eos):
        output.append(int(logits(model, token_ids + output)[-1].argmax()))
    return output
