"""Forward passes before anything counts: they run every kernel once and measure the memory of the largest step."""

from __future__ import annotations

import torch
from torch import Tensor

from framework.execution.device.memory import explain_out_of_memory
from framework.execution.step.network import FusedNetwork, Network


@torch.inference_mode()
def measure_activation_bytes(network: Network, *, num_tokens: int, num_rows: int, device: torch.device) -> int:
    """Peak memory of a step of `num_tokens` tokens and `num_rows` sampled rows. Attention is left out: it is linear.

    Smaller steps run first, one for each set of kernels that the network has, so that none is compiled in a run.
    Call it with one block of KV cache per layer, to which nothing is written. The result is 0 on a CPU, where memory
    grows as needed.

    Raises:
        ValueError: out of memory.
    """
    if device.type != "cuda":
        return 0
    before = torch.cuda.memory_allocated(device)
    token_ids_T = torch.zeros(num_tokens, dtype=torch.int32, device=device)
    position_T = torch.zeros(num_tokens, dtype=torch.int64, device=device)
    slot_T = torch.full((num_tokens,), -1, dtype=torch.int64, device=device)

    def attend(layer: int, q_TNH: Tensor, *kv: Tensor) -> Tensor:
        return torch.zeros_like(q_TNH)

    with explain_out_of_memory(
        f"profiling a step of {num_tokens} tokens", "engine.max_num_batched_tokens or engine.max_num_seqs"
    ):
        for size in sorted({min(size, num_tokens) for size in network.step_sizes}):
            hidden_TD = network.forward(token_ids_T[:size], position_T[:size], slot_T[:size], attend)
            network.compute_logits(hidden_TD[: min(size, num_rows)])
        torch.cuda.reset_peak_memory_stats(device)
        hidden_TD = network.forward(token_ids_T, position_T, slot_T, attend)
        logits_RV = network.compute_logits(hidden_TD[:1].expand(num_rows, -1).contiguous())
        if not isinstance(network, FusedNetwork):
            logits_RV.float().clone()
    return torch.cuda.max_memory_allocated(device) - before
