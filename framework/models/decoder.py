"""A decoder: embedding, layers and LM head, flattened over the tokens of a mixed batch.

Shape letters: T tokens of the step, R rows whose logits are wanted, N query heads, M KV heads, H head size, D model
size, V vocabulary. N and M are those of this tensor-parallel rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from framework.models.config import ModelConfig
from framework.models.decoder_layer import DecoderLayer
from framework.models.family import Family
from framework.models.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from framework.models.layers.group import TensorParallelGroup
from framework.models.layers.linear import LinearLayer
from framework.models.layers.norm import RMSNorm
from framework.models.layers.placement import Placement
from framework.models.layers.rotary import RotaryEmbedding, Rotation, make_rotary
from framework.registry import FAMILIES

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""`attend(layer, q_TNH, k_TMH, v_TMH) -> [T, N, H]`, given by the runner; writes the KV cache. The inputs may be views
of one buffer: only their last dimension is contiguous."""


class DecoderLM(nn.Module):
    """A causal language model. Parameters are uninitialised until a loader fills the slots of `weight_slots`."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        device: torch.device,
        dtype: torch.dtype,
        group: TensorParallelGroup | None = None,
        max_model_len: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.max_model_len = max_model_len or config.max_model_len
        place = Placement(device, dtype, group or TensorParallelGroup())
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size, place=place)
        self._embedding_scale = float(torch.tensor(config.embedding_scale, dtype=dtype))  # rounded as in transformers
        family: Family = FAMILIES.get(config.family)()
        layers = nn.ModuleList(family.layer(config, index, place=place) for index in range(config.num_layers))
        self.layers = cast(list[DecoderLayer], layers)  # or a family's own modules with its methods
        self.norm = RMSNorm(config.hidden_size, config.rms_eps, place=place, offset=float(config.norm_offset))
        tied_to = self.embed_tokens if config.tie_embeddings else None
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size, place=place, tied_to=tied_to)
        self.rotary = cast(RotaryEmbedding, make_rotary(config.rope, config.head_size, self.max_model_len, place=place))
        self.window_rotary = (
            cast(RotaryEmbedding, make_rotary(config.window_rope, config.head_size, self.max_model_len, place=place))
            if config.window_rope is not None
            else None
        )

    @property
    def num_heads(self) -> int:
        """The number of query heads of this rank."""
        return self.layers[0].self_attn.num_heads

    @property
    def num_kv_heads(self) -> int:
        """The number of KV heads of this rank."""
        return self.layers[0].self_attn.num_kv_heads

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor:
        """[T] tokens at [T] positions below `max_model_len` -> [T, D] hidden states, normalised."""
        rotations = self._rotations(positions_T)
        residual_TD = self.embed_tokens(token_ids_T)
        if self._embedding_scale != 1.0:
            residual_TD = residual_TD * self._embedding_scale
        hidden_TD: Tensor | None = None
        for index, layer in enumerate(self.layers):
            q_TNH, k_TMH, v_TMH = layer.before_attention(hidden_TD, residual_TD, rotations[index])
            hidden_TD = layer.after_attention(attend(index, q_TNH, k_TMH, v_TMH), residual_TD)
        assert hidden_TD is not None
        return self.norm.add_and_norm(hidden_TD, residual_TD)

    def compute_logits(self, hidden_RD: Tensor) -> Tensor:
        """[R, D] -> [R, V] float32 over the full vocabulary, on every rank."""
        logits_RV = self.lm_head(hidden_RD).float()
        if self.config.logit_scale != 1.0:
            logits_RV = logits_RV * self.config.logit_scale
        if (cap := self.config.logit_softcap) is not None:
            logits_RV = (logits_RV / cap).tanh_().mul_(cap)
        return logits_RV

    def _rotations(self, positions_T: Tensor) -> list[Rotation | None]:
        """The rotation of each layer, None where it has no positions."""
        config = self.config
        everywhere = Rotation(self.rotary, *self.rotary.angles(positions_T))
        rotations: list[Rotation | None] = [everywhere] * config.num_layers
        if self.window_rotary is not None:
            windowed = Rotation(self.window_rotary, *self.window_rotary.angles(positions_T))
            for index, window in enumerate(config.windows):
                if window is not None:
                    rotations[index] = windowed
        for index in config.nope_layers:
            rotations[index] = None
        return rotations

    def finalize(self) -> None:
        """Prepare the layers. Call it once, when all weights are loaded."""
        for _, layer in self.linear_layers():
            layer.finalize()

    def linear_layers(self) -> Iterator[tuple[str, LinearLayer]]:
        """Name and layer of every weight matrix product, the LM head last; set `layer.kernel` to replace one."""
        for name, module in self.named_modules():
            if isinstance(module, LinearLayer):
                yield name, module
