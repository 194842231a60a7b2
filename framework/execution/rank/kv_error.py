"""What a KV cache narrower than the model costs in accuracy, measured on the loaded weights and the chosen backend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from framework.interfaces.attention import AttentionBackend, BatchLayout
from framework.interfaces.errors import IncompatibleError
from framework.models.decoder import DecoderLM

_PROBE_TOKENS = 256


@torch.inference_mode()
def kv_error(model: DecoderLM, attention: AttentionBackend, kv_caches: Sequence[Tensor]) -> dict[str, float]:
    """Run a prompt of random tokens and compare every layer's attention with that of unrounded keys and values.

    Each layer starts from exact inputs, so that errors do not add up. Overwrites the first blocks of the caches.

    Returns:
        `mean` and `worst` over the layers of ||got - exact|| / ||exact||, the `worst_layer`, and `saturated`, the share
        of keys and values beyond the cache's largest number, to which they were cut.
    """
    spec = attention.spec
    if spec.softcap is not None:
        raise IncompatibleError(
            "executor.kv_dtype: its error is not measured for models that cap scores; set it to auto"
        )
    most = cached_tokens(attention, kv_caches[0])
    num_tokens = min(_PROBE_TOKENS, most, spec.max_model_len, spec.max_num_batched_tokens, model.max_model_len)
    ids = torch.randint(model.config.vocab_size, (num_tokens,), generator=torch.Generator().manual_seed(0))
    position_T = torch.arange(num_tokens, device=spec.device)
    metadata = attention.plan(one_row(0, num_tokens, spec.block_size, spec.device))
    largest = torch.finfo(spec.kv_dtype).max
    errors: list[Tensor] = []
    beyond: list[Tensor] = []

    def attend(layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor) -> Tensor:
        got_TNH = attention.forward(layer, q_TNH, k_TMH, v_TMH, kv_caches[layer], metadata).float()
        q, k, v = (x_THH.float().transpose(0, 1) for x_THH in (q_TNH, k_TMH, v_TMH))
        seen = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=q.device).tril()
        if (window := spec.window(layer)) is not None:
            seen = seen.triu(1 - window)
        exact = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=spec.scale, enable_gqa=True)
        exact_TNH = exact.transpose(0, 1)
        errors.append((got_TNH - exact_TNH).norm() / exact_TNH.norm())
        beyond.append(torch.stack((k_TMH, v_TMH)).abs().gt(largest).float().mean())
        return exact_TNH.to(q_TNH.dtype).contiguous()

    model(ids.to(spec.device, torch.int32), position_T, attend)
    by_layer = torch.stack(errors).tolist()
    worst = max(range(len(by_layer)), key=by_layer.__getitem__)
    return {
        "mean": round(sum(by_layer) / len(by_layer), 5),
        "worst": round(by_layer[worst], 5),
        "worst_layer": worst,
        "saturated": float(torch.stack(beyond).mean()),
    }


def cached_tokens(attention: AttentionBackend, kv_cache: Tensor) -> int:
    """The number of tokens that a cache was made for."""
    return attention.spec.block_size * (kv_cache.numel() // torch.Size(attention.kv_cache_shape(1)).numel())


def one_row(start: int, stop: int, block_size: int, device: torch.device) -> BatchLayout:
    """The layout of a step that computes the tokens `start:stop` of a prompt in the first blocks."""
    num_tokens, num_blocks = stop - start, -(-stop // block_size)
    position_T = torch.arange(start, stop, device=device)
    return BatchLayout(
        num_rows=1,
        num_tokens=num_tokens,
        num_decode_rows=int(num_tokens == 1),
        query_start_R1=torch.tensor([0, num_tokens], dtype=torch.int32, device=device),
        seq_lens_R=torch.tensor([stop], dtype=torch.int32, device=device),
        block_table_RB=torch.arange(num_blocks, dtype=torch.int32, device=device).unsqueeze(0),
        slot_mapping_T=position_T.clone(),
        positions_T=position_T,
        query_start_host=[0, num_tokens],
        seq_lens_host=[stop],
    )
