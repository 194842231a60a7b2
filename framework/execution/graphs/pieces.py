"""Piecewise graphs: everything between two attention calls is captured, and attention itself runs outside graphs.

So a captured shape depends on the number of tokens alone, and prefill chunks and mixed batches replay too. The idea is
vLLM's piecewise CUDA graphs (vLLM blog, "vLLM V1", 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framework.execution.step.network import Attend, Network


@dataclass(slots=True)
class _Piece:
    """A graph, what it hands to attention, and where the next piece expects the answer."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    answer: Tensor


class PiecewiseGraph:
    """The forward pass of up to `num_tokens` tokens in the given buffers, cut at attention."""

    def __init__(
        self, network: Network, token_ids_T: Tensor, position_T: Tensor, slot_T: Tensor, answer: Tensor, pool: Any
    ) -> None:
        self._pieces: list[_Piece] = []
        num_tokens = len(token_ids_T)
        stream = torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            self._last = torch.cuda.CUDAGraph()
            self._last.capture_begin(pool=pool, capture_error_mode="thread_local")

            def cut(layer: int, *inputs: Tensor) -> Tensor:
                self._last.capture_end()
                shape = (num_tokens, *inputs[0].shape[1:])
                out_TNH = answer[: num_tokens * inputs[0][0].numel()].view(shape)
                self._pieces.append(_Piece(self._last, inputs, out_TNH))
                self._last = torch.cuda.CUDAGraph()
                self._last.capture_begin(pool=pool, capture_error_mode="thread_local")
                return out_TNH

            self._hidden_TD = network.forward(token_ids_T, position_T, slot_T, cut)
            self._last.capture_end()
        torch.cuda.synchronize()

    def replay(self, attend: Attend, num_tokens: int) -> Tensor:
        """Hidden states of the first `num_tokens` tokens. The others are padding that attention never sees."""
        for layer, piece in enumerate(self._pieces):
            piece.graph.replay()
            piece.answer[:num_tokens] = attend(layer, *(one[:num_tokens] for one in piece.inputs))
        self._last.replay()
        return self._hidden_TD[:num_tokens]
