"""The two ways to run a loaded model: its own modules, or fused kernels over its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from framework.interfaces.attention import AttentionBackend
from framework.interfaces.errors import PluginError
from framework.models.decoder import DecoderLM

if TYPE_CHECKING:
    from framework.execution.kernels.cuda.decoder import FusedDecoder

Attend = Callable[..., Tensor]
"""The signature is `attend(layer, q_TNH, ...)`, with keys and values if the network has not written them."""


class Network(Protocol):
    """A model and its KV memory."""

    model: DecoderLM
    kv_caches: Sequence[Tensor]
    step_sizes: tuple[int, ...]
    """Numbers of tokens, one for each set of kernels that steps of different sizes run."""

    def attend(self, attention: AttentionBackend, metadata: Any) -> Attend:
        """Run the backend's part of a step."""

    def forward(self, token_ids_T: Tensor, position_T: Tensor, slot_T: Tensor, attend: Attend) -> Tensor:
        """Compute normalised hidden states [T, D] from tokens [T]."""

    def compute_logits(self, hidden_RD: Tensor) -> Tensor:
        """Compute logits [R, V] float32 from hidden states [R, D]."""


class ModuleNetwork:
    """The model's modules; the attention backend writes the cache."""

    step_sizes: tuple[int, ...] = (1, 2)  # torch.compile takes one token for a case of its own

    def __init__(self, model: DecoderLM, kv_caches: Sequence[Tensor]) -> None:
        self.model, self.kv_caches = model, kv_caches

    def attend(self, attention: AttentionBackend, metadata: Any) -> Attend:
        def run(layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor) -> Tensor:
            out_TNH = attention.forward(layer, q_TNH, k_TMH, v_TMH, self.kv_caches[layer], metadata)
            return _checked(attention, out_TNH, q_TNH)

        return run

    def forward(self, token_ids_T: Tensor, position_T: Tensor, slot_T: Tensor, attend: Attend) -> Tensor:
        return self.model(token_ids_T, position_T, attend)

    def compute_logits(self, hidden_RD: Tensor) -> Tensor:
        return self.model.compute_logits(hidden_RD)


class FusedNetwork:
    """Fused Triton kernels, which write the cache themselves. They need a backend with `separate_write`."""

    def __init__(self, decoder: FusedDecoder, kv_caches: Sequence[Tensor]) -> None:
        self.decoder, self.model, self.kv_caches = decoder, decoder.model, kv_caches
        self.step_sizes = decoder.step_sizes

    def attend(self, attention: AttentionBackend, metadata: Any) -> Attend:
        def run(layer: int, q_TNH: Tensor) -> Tensor:
            return _checked(attention, attention.attend(layer, q_TNH, self.kv_caches[layer], metadata), q_TNH)

        return run

    def forward(self, token_ids_T: Tensor, position_T: Tensor, slot_T: Tensor, attend: Attend) -> Tensor:
        return self.decoder.forward(token_ids_T, position_T, slot_T, self.kv_caches, attend)

    def compute_logits(self, hidden_RD: Tensor) -> Tensor:
        return self.decoder.compute_logits(hidden_RD)


def _checked(attention: AttentionBackend, out_TNH: Tensor, q_TNH: Tensor) -> Tensor:
    if out_TNH.shape != q_TNH.shape:
        raise PluginError(
            f"attention backend {type(attention).__name__} returned shape {tuple(out_TNH.shape)} for queries of shape "
            f"{tuple(q_TNH.shape)}; the rule is one output a query and head"
        )
    return out_TNH
