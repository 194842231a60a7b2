"""What the framework needs to know of a model, read from its Hugging Face config."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from framework.models import hf_values
from framework.models.families import family_of
from framework.models.layers.config_values import flag, integer, number
from framework.models.layers.expert_shape import Experts
from framework.models.layers.norm_places import Norms
from framework.models.layers.rope_config import RopeConfig

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A decoder: grouped-query attention, a gated feed-forward block or experts, RMSNorm. Counts are before any split.

    The defaults are those of a Llama. A family states what differs (`Family.traits`).
    """

    family: str
    """The name that the family is registered under."""
    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    max_position: int
    """`max_position_embeddings`: what the config promises without RoPE scaling."""
    rope: RopeConfig
    window_rope: RopeConfig | None = None
    """The positions of layers with a window, where they differ from those of the others."""
    nope_layers: tuple[int, ...] = ()
    """The layers without positions."""
    rms_eps: float
    tie_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    """Whether the attention's output projection has a bias."""
    mlp_bias: bool
    norms: Norms = field(default_factory=Norms)
    norm_offset: bool = False
    """Whether norms multiply by 1 + w, with the w of the checkpoint."""
    qk_norm: Literal["head", "all"] | None = None
    """What a norm of queries and of keys spans: each head, or all heads together."""
    activation: str = "silu"
    """"silu", "gelu", "gelu_tanh" or "relu"."""
    fused_qkv: bool = False
    """Whether the checkpoint holds queries, keys and values as one tensor."""
    fused_gate_up: bool = False
    """Whether the checkpoint holds gate and up projection as one tensor."""
    attention_scale: float
    """The factor of the products of queries and keys."""
    attention_softcap: float | None = None
    """c in c tanh(score / c), which limits attention scores; None for no limit."""
    logit_softcap: float | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    """The factor of what each block adds to the residual stream."""
    logit_scale: float = 1.0
    windows: tuple[int | None, ...] = ()
    """How many tokens each layer sees, its own included; None for all of them. Empty where no layer has a window."""
    experts: Experts | None = None
    """The experts of layers that have them; `intermediate_size` is about the other layers."""
    own_layers: tuple[str, ...] = ()
    """What the family builds itself, of `attention`, `mlp` and `layer`."""
    own_parameters: int = 0
    """Weights of the family's own layers beyond those that are counted from the fields above."""
    dtype: str | None
    """The type of the checkpoint, such as "bfloat16"."""
    initializer_range: float
    """The standard deviation of random weights."""
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]

    @classmethod
    def from_hf(cls, config: Any, *, max_model_len: int | None = None) -> ModelConfig:
        """Read a `config.json`, given as a mapping, or a `transformers` config object.

        Raises:
            ValueError: for an unsupported architecture, activation or RoPE type, a setting that is missing, of a wrong
                type or out of range, or a `max_model_len` above what the model can do.
        """
        given: Mapping[str, Any] = config if isinstance(config, Mapping) else config.to_dict()
        name, family = family_of(given)
        values = {**family.defaults, **given}
        if missing := [key for key in _REQUIRED if values.get(key) is None]:
            raise ValueError(f"the config of {family.architecture} lacks {', '.join(missing)}")
        hf_values.check_not_quantised(values)
        counts = {key: integer(values, key) for key in _REQUIRED}
        num_heads = counts["num_attention_heads"]
        head_size = hf_values.head_size(values, counts["hidden_size"], num_heads)
        llama: dict[str, Any] = {
            "num_layers": counts["num_hidden_layers"],
            "hidden_size": counts["hidden_size"],
            "num_heads": num_heads,
            "num_kv_heads": hf_values.num_kv_heads(values, num_heads),
            "head_size": head_size,
            "intermediate_size": counts["intermediate_size"],
            "vocab_size": counts["vocab_size"],
            "max_position": counts["max_position_embeddings"],
            "rms_eps": number(values, "rms_norm_eps", 1e-6, at_least=0),
            "tie_embeddings": flag(values, "tie_word_embeddings"),
            "qkv_bias": flag(values, "attention_bias"),
            "output_bias": flag(values, "attention_bias"),
            "mlp_bias": False,
            "activation": hf_values.activation(values),
            "attention_scale": head_size**-0.5,
            "own_layers": family.own_layers(),
            "dtype": hf_values.dtype_name(values),
            "initializer_range": number(values, "initializer_range", 0.02, at_least=0),
            "bos_token_id": integer(values, "bos_token_id", at_least=0)
            if values.get("bos_token_id") is not None
            else None,
            "eos_token_ids": hf_values.token_ids(values, "eos_token_id"),
        }
        traits = {"rope": family.rope(values, max_model_len), **family.traits(values)}
        if unknown := sorted(set(traits) - {field.name for field in dataclasses.fields(cls)}):
            raise ValueError(
                f"family {name} ({type(family).__name__}.traits) sets {', '.join(unknown)}, which ModelConfig lacks"
            )
        model = cls(family=name, architecture=family.architecture, **{**llama, **traits})
        model.check_length(max_model_len)
        return model

    @property
    def max_model_len(self) -> int:
        """The longest sequence that the model can do, including RoPE scaling."""
        return self.rope.max_model_len(self.max_position)

    @property
    def sliding_window(self) -> int | None:
        """The shortest window of a layer; None if no layer has one."""
        return min((window for window in self.windows if window is not None), default=None)

    def windows_within(self, length: int) -> tuple[int | None, ...]:
        """`windows` as they matter to sequences of up to `length` tokens; empty if none does."""
        windows = tuple(window if window is not None and window < length else None for window in self.windows)
        return windows if any(windows) else ()

    def check_length(self, max_model_len: int | None) -> None:
        """Refuse a `max_model_len` that the model can't serve; None asks for the most that it can do."""
        if max_model_len is not None and not 1 <= max_model_len <= self.max_model_len:
            raise ValueError(
                f"max_model_len={max_model_len} must be in [1, {self.max_model_len}], what this {self.architecture} "
                f"has positions for; lower engine.max_model_len or set RoPE scaling in the model's config"
            )

    @property
    def num_parameters(self) -> int:
        """The number of weights in the checkpoint. A tied embedding counts once."""
        qk_norm = {None: 0, "head": 2 * self.head_size, "all": self._q_size + self._kv_size}[self.qk_norm]
        norms = (self.norms.number * self.num_layers + 1) * self.hidden_size + self.num_layers * qk_norm
        biases = self.num_layers * (
            (self._q_size + 2 * self._kv_size) * self.qkv_bias
            + self.hidden_size * self.output_bias
            + (2 * self.intermediate_size + self.hidden_size) * self.mlp_bias
        )  # no family has experts with biases
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)
        return self._matrices(active=False) + embeddings + norms + biases + self.own_parameters

    @property
    def num_active_parameters(self) -> int:
        """Those that one token is multiplied with, or looked up in: all but the experts that it does not have."""
        return self.num_parameters - self._matrices(active=False) + self._matrices(active=True)

    @property
    def matmul_flops_per_token(self) -> int:
        """Floating-point operations of the weight matrices, including the LM head. Attention comes on top of it."""
        return 2 * (self._matrices(active=True) + self.vocab_size * self.hidden_size)

    @property
    def kv_values_per_token(self) -> int:
        """The number of values in the keys and values of one token, over all layers."""
        return 2 * self.num_layers * self._kv_size

    @property
    def _q_size(self) -> int:
        return self.num_heads * self.head_size

    @property
    def _kv_size(self) -> int:
        return self.num_kv_heads * self.head_size

    @property
    def num_experts(self) -> int:
        """The number of experts in a layer that has them; 0 for a dense model, as the next three."""
        return 0 if self.experts is None else self.experts.number

    @property
    def experts_per_token(self) -> int:
        return 0 if self.experts is None else self.experts.per_token

    @property
    def expert_size(self) -> int:
        """The features between the projections of one expert."""
        return 0 if self.experts is None else self.experts.size

    @property
    def num_expert_layers(self) -> int:
        return 0 if self.experts is None else len(self.experts.layers)

    def _matrices(self, *, active: bool) -> int:
        """The weights in the matrices of all layers, or those of them that one token is multiplied with."""
        attention = self.num_layers * self.hidden_size * (2 * self._q_size + 2 * self._kv_size)
        dense = (self.num_layers - self.num_expert_layers) * 3 * self.hidden_size * self.intermediate_size
        if self.experts is None:
            return attention + dense
        number = self.experts.per_token if active else self.experts.number
        return attention + dense + self.num_expert_layers * self.experts.parameters(self.hidden_size, number)
