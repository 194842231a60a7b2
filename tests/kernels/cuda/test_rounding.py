"""What a token comes to hardly depends on how many others are in its step: all kernels round at the same places.

The interpreter adds float32 numbers in another order for another number of rows, so a few values land on the other
side of a rounding; where a set of kernels rounds elsewhere, about half of them do.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from framework.config.schema import ModelSection
from framework.execution.kernels.cuda.decode_attention import DecodeTile, PagedDecode
from framework.execution.kernels.cuda.decoder import FusedDecoder
from framework.models.loading.load import load_model
from tests.parity.families import save_model

NUM_TOKENS = 18


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> FusedDecoder:
    path: Path = tmp_path_factory.mktemp("qwen3")
    save_model("qwen3", path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cfg = ModelSection(name="qwen3", path=str(path))
    model = load_model(cfg, device=device, dtype=torch.float16, max_model_len=64, with_tokenizer=False).model
    return FusedDecoder(model, split_rows=17)  # 18 tokens are the library's


@torch.inference_mode()
def test_by_the_number_of_tokens(fused: FusedDecoder) -> None:
    model, device = fused.model, fused.model.embed_tokens.weight.device
    ids = torch.randint(model.config.vocab_size, (NUM_TOKENS,), generator=torch.Generator().manual_seed(2))
    ids, position = ids.to(device, torch.int32), torch.arange(NUM_TOKENS, device=device)
    shape = (2, 4, 16, model.num_kv_heads, model.config.head_size)

    def hidden(num_tokens: int) -> Tensor:
        caches = [torch.zeros(shape, dtype=torch.float16, device=device) for _ in model.layers]
        step = ids[:num_tokens], position[:num_tokens], position[:num_tokens]
        out_TD = fused.forward(*step, caches, lambda layer, q_TNH: q_TNH.contiguous())
        return torch.cat((out_TD[0].float(), fused.compute_logits(out_TD[:1])[0].half().float()))

    want = hidden(2)
    assert model.embed_tokens.weight.dtype == torch.float16
    for num_tokens in (1, 17, NUM_TOKENS):
        assert (hidden(num_tokens) != want).float().mean() < 0.1, f"{num_tokens} tokens"


def test_attention_by_where_the_contexts_are_cut(device: str) -> None:
    """Another number of ranges, hence another best score so far where a range begins."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([130, 70, 101], dtype=torch.int32)
    cache = torch.randn(2, 30, 16, 1, 32, generator=generator).half().to(device)
    table = torch.arange(27, dtype=torch.int32).view(3, 9).to(device)
    q = 3 * torch.randn(3, 4, 32, generator=generator).half().to(device)
    found = []
    for programs in (1, 3):
        decode = PagedDecode(
            num_heads=4, num_kv_heads=1, head_size=32, block_size=16, scale=0.4, max_num_rows=4,
            device=torch.device(device), tile=DecodeTile(16, 4, 2, programs),
        )  # fmt: skip
        out = torch.full(q.shape, torch.nan, device=device)  # float32: what is left before the last rounding
        decode(q, cache, decode.plan(lengths.to(device), table), out)
        found.append(out)
    torch.testing.assert_close(found[0], found[1], rtol=2e-6, atol=2e-6)
