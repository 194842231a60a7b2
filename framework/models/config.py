"""What the framework needs to know of a model, read from its Hugging Face config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framework.models.families import Family, family_of
from framework.models.layers.config_values import flag, integer, number
from framework.models.layers.rope_config import RopeConfig

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
_DEFAULT_WINDOW = 4096
"""The value that `transformers` takes if the key is absent. null says that there is no window."""
_ACTIVATIONS = ("silu", "swish")  # two names of one function


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A dense decoder: grouped-query attention, SwiGLU, RMSNorm, rotary positions. Counts are before any split."""

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
    rms_eps: float
    tie_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    """Whether the attention's output projection has a bias."""
    mlp_bias: bool
    qk_norm: bool
    sliding_window: int | None
    """The number of tokens that a layer with a window sees; None if no layer has one."""
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
                type or out of range, a `max_model_len` above what the model can do, or a shorter sliding window.
        """
        values: Mapping[str, Any] = config if isinstance(config, Mapping) else config.to_dict()
        family = family_of(values)
        if missing := [key for key in _REQUIRED if values.get(key) is None]:
            raise ValueError(f"the config of {family.architecture} lacks {', '.join(missing)}")
        if (activation := values.get("hidden_act", "silu")) not in _ACTIVATIONS:
            raise ValueError(f"hidden_act={activation!r} is not supported; only 'silu' is")
        _check_not_quantised(values)
        counts = {key: integer(values, key) for key in _REQUIRED}
        num_heads = counts["num_attention_heads"]
        num_kv_heads = _num_kv_heads(values, family, num_heads)
        model = cls(
            architecture=family.architecture,
            num_layers=counts["num_hidden_layers"],
            hidden_size=counts["hidden_size"],
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_size=_head_size(values, family, counts["hidden_size"], num_heads),
            intermediate_size=counts["intermediate_size"],
            vocab_size=counts["vocab_size"],
            max_position=counts["max_position_embeddings"],
            rope=RopeConfig.from_hf(values),
            rms_eps=number(values, "rms_norm_eps", 1e-6, at_least=0),
            tie_embeddings=flag(values, "tie_word_embeddings"),
            qkv_bias=_flag(family.qkv_bias, values),
            output_bias=_flag(family.output_bias, values),
            mlp_bias=_flag(family.mlp_bias, values),
            qk_norm=family.qk_norm,
            sliding_window=_sliding_window(values, family),
            dtype=_dtype_name(values),
            initializer_range=number(values, "initializer_range", 0.02, at_least=0),
            bos_token_id=integer(values, "bos_token_id", at_least=0)
            if values.get("bos_token_id") is not None
            else None,
            eos_token_ids=token_ids(values, "eos_token_id"),
        )
        model.check_length(max_model_len)
        return model

    @property
    def max_model_len(self) -> int:
        """The longest sequence that the model can do, including RoPE scaling."""
        return self.rope.max_model_len(self.max_position)

    def check_length(self, max_model_len: int | None) -> None:
        """Refuse a `max_model_len` that the model can't serve; None asks for the most that it can do."""
        if max_model_len is not None and not 1 <= max_model_len <= self.max_model_len:
            raise ValueError(
                f"max_model_len={max_model_len} must be in [1, {self.max_model_len}], what this {self.architecture} "
                f"has positions for; lower engine.max_model_len or set RoPE scaling in the model's config"
            )
        length = max_model_len or self.max_model_len
        if self.sliding_window is not None and self.sliding_window < length:
            raise ValueError(
                f"this {self.architecture} attends over a sliding window of {self.sliding_window} tokens, which is not "
                f"supported; only full attention is: set engine.max_model_len={self.sliding_window} or less"
            )

    @property
    def num_parameters(self) -> int:
        """The number of weights in the checkpoint. A tied embedding counts once."""
        norms = (2 * self.num_layers + 1) * self.hidden_size + self.num_layers * 2 * self.head_size * self.qk_norm
        biases = self.num_layers * (
            (self._q_size + 2 * self._kv_size) * self.qkv_bias
            + self.hidden_size * self.output_bias
            + (2 * self.intermediate_size + self.hidden_size) * self.mlp_bias
        )
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)
        return self.num_layers * self._layer_matrix_size + embeddings + norms + biases

    @property
    def matmul_flops_per_token(self) -> int:
        """Floating-point operations of the weight matrices, including the LM head. Attention comes on top of it."""
        return 2 * (self.num_layers * self._layer_matrix_size + self.vocab_size * self.hidden_size)

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
    def _layer_matrix_size(self) -> int:
        attention = 2 * self._q_size + 2 * self._kv_size
        return self.hidden_size * (attention + 3 * self.intermediate_size)


def token_ids(values: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """A config's `eos_token_id`, which may be one id, several or none.

    Raises:
        ValueError: naming the key and its value.
    """
    value = values.get(key)
    if value is None:
        return ()
    items = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(item, bool) or not isinstance(item, int) or item < 0 for item in items):
        raise ValueError(f"{key}={value!r} must be a token id (an integer of at least 0), a list of them, or null")
    return tuple(items)


def _check_not_quantised(values: Mapping[str, Any]) -> None:
    # "quantization" is MLX's key; a text in either one names the method.
    for key in ("quantization_config", "quantization"):
        if settings := values.get(key):
            method = settings.get("quant_method", "unknown") if isinstance(settings, Mapping) else settings
            method = "mlx" if key == "quantization" and method == "unknown" else method
            raise ValueError(f"weights quantised with {method!r} are not supported; use the unquantised checkpoint")


def _num_kv_heads(values: Mapping[str, Any], family: Family, num_heads: int) -> int:
    """As `transformers`: an absent key has the default of the family, null means as many as query heads."""
    default = family.num_kv_heads or num_heads
    if "num_key_value_heads" in values:
        default = num_heads
    num_kv_heads = integer(values, "num_key_value_heads", default)
    if num_heads % num_kv_heads:
        raise ValueError(
            f"num_attention_heads={num_heads} must be a multiple of num_key_value_heads={num_kv_heads}; "
            f"correct the config"
        )
    return num_kv_heads


def _head_size(values: Mapping[str, Any], family: Family, hidden_size: int, num_heads: int) -> int:
    default = family.head_size if family.head_size and "head_dim" not in values else max(1, hidden_size // num_heads)
    head_size = integer(values, "head_dim", default)
    if head_size % 2:
        raise ValueError(f"head_dim={head_size} must be even, since rotary positions turn pairs; correct the config")
    return head_size


def _flag(setting: bool | str, values: Mapping[str, Any]) -> bool:
    return flag(values, setting) if isinstance(setting, str) else setting


def _dtype_name(values: Mapping[str, Any]) -> str | None:
    dtype = values.get("dtype") or values.get("torch_dtype")
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _sliding_window(values: Mapping[str, Any], family: Family) -> int | None:
    if family.windowed == "never" or (family.windowed == "flag" and not flag(values, "use_sliding_window")):
        return None
    if values.get("sliding_window", _DEFAULT_WINDOW) is None:
        return None
    window = integer(values, "sliding_window", _DEFAULT_WINDOW)
    layer_types = values.get("layer_types")
    if layer_types is not None:
        if not isinstance(layer_types, list | tuple):
            raise ValueError(f"layer_types={layer_types!r} must be a list with a name for each layer, or null")
        return window if "sliding_attention" in layer_types else None
    first_windowed = integer(values, "max_window_layers", 28, at_least=0) if family.windowed == "flag" else 0
    return window if first_windowed < values["num_hidden_layers"] else None
