"""A family of models: what a Hugging Face config of it means, and the layers that run it.

Nobody chooses a family: the `architectures` of a model's config, or its `model_type`, name it. One class in one file is
a family, in `plugins/models/` or in a file that `plugins=[FILE]` names. Every rank of a tensor-parallel engine and
every simulation reads the same class, so importing its file must not load torch.

    @FAMILIES.register("seed_oss")
    class SeedOss(Family):
        architecture = "SeedOssForCausalLM"

        def traits(self, values):
            return {"qkv_bias": flag(values, "attention_bias", True)}

Most families are Llama but for the `traits`, fields of `ModelConfig`. A family with another kind of layer returns
modules of its own from `attention`, `mlp` or `layer`. It builds them from the tensor-parallel parts in
`framework.models.layers`, and it imports these inside the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from framework.models.hf_values import activation
from framework.models.layers.config_values import flag, integer, number, section
from framework.models.layers.expert_shape import Experts, expert_counts
from framework.models.layers.norm_places import Norms
from framework.models.layers.rope_config import RopeConfig

if TYPE_CHECKING:  # a configuration is read, and simulated, without torch
    from torch import nn

    from framework.models.config import ModelConfig
    from framework.models.layers.placement import Placement

__all__ = [
    "Experts",
    "Family",
    "Norms",
    "RopeConfig",
    "activation",
    "expert_counts",
    "flag",
    "integer",
    "layer_windows",
    "number",
    "rope_of_layers",
    "upper_windows",
]


class Family:
    """Registers with `@FAMILIES.register("model_type")`. It has no parameters and keeps no state."""

    architecture: ClassVar[str]
    """The class of `transformers` that `architectures` names, such as `LlamaForCausalLM`."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """What `transformers` takes for a key that the config lacks, where that is not what it takes for a Llama. A key
    with the value null is not one that is absent."""
    twin: ClassVar[str | None] = None
    """The `model_type` of `transformers` that computes the same, with which `framework check` compares; None for the
    name that the family is registered under."""
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Small models that show what the family can do, for `framework check`: each holds the keys of a config in which it
    differs from `conformance.kit.tiny_model.TINY`."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if not isinstance(getattr(cls, "architecture", None), str):
            raise TypeError(f"{cls.__name__} must name its `architecture`, such as 'LlamaForCausalLM'")

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of `ModelConfig` in which a model of this family differs from what is read for a Llama.

        Args:
            values: the config, with `defaults` for what it lacks. `flag`, `integer` and `number` read a key and name it
                in their errors.

        Raises:
            ValueError: naming the key, its value and the remedy.
        """
        return {}

    def rope(self, values: Mapping[str, Any], max_model_len: int | None) -> RopeConfig:
        """The rotary positions; `max_model_len` is the longest sequence that will run, None for what the model can do.

        Raises:
            ValueError: as `traits`.
        """
        return RopeConfig.from_hf(values, max_model_len=max_model_len)

    def attention(self, config: ModelConfig, index: int, *, place: Placement) -> nn.Module:
        """The attention block of layer `index`: `qkv(hidden_TD, positions)`, `project(out_TNH)` and `slots()`, as
        `decoder_layer.Attention` has them."""
        from framework.models.decoder_layer import Attention

        return Attention(config, index, place=place)

    def mlp(self, config: ModelConfig, index: int, *, place: Placement) -> nn.Module:
        """The feed-forward block of layer `index`: `forward(hidden_TD) -> [T, D]`, the same on every rank, and
        `slots()`."""
        from framework.models.decoder_layer import MLP

        if config.experts is not None and index in config.experts.layers:
            from framework.models.layers.experts import ExpertMLP

            return ExpertMLP(config.experts, config.hidden_size, config.activation, place=place)
        return MLP(config, place=place)

    def layer(self, config: ModelConfig, index: int, *, place: Placement) -> nn.Module:
        """The whole layer `index`, with the methods of `decoder_layer.DecoderLayer`."""
        from framework.models.decoder_layer import DecoderLayer

        attention = self.attention(config, index, place=place)
        return DecoderLayer(config, attention, self.mlp(config, index, place=place), place=place)

    @classmethod
    def own_layers(cls) -> tuple[str, ...]:
        """Which of `attention`, `mlp` and `layer` the family builds itself. Fused kernels do not know those."""
        return tuple(name for name in ("attention", "mlp", "layer") if getattr(cls, name) is not getattr(Family, name))


def layer_windows(values: Mapping[str, Any], types: list[str] | None = None) -> dict[str, Any]:
    """The trait `windows`: how many tokens each layer sees, its own included; None for all of them.

    Args:
        types: `sliding_attention` or `full_attention` for each layer, where the config has no `layer_types`. None for a
            window on every layer.

    Raises:
        ValueError: a window below 1, or `layer_types` that are not one known name per layer.
    """
    num_layers = integer(values, "num_hidden_layers")
    if values.get("sliding_window") is None:
        return {"windows": (None,) * num_layers}
    window = integer(values, "sliding_window")
    given = values.get("layer_types")
    if given is None:
        given = types or ["sliding_attention"] * num_layers
    known = ("sliding_attention", "full_attention")
    if not isinstance(given, list | tuple) or len(given) != num_layers or any(name not in known for name in given):
        raise ValueError(
            f"layer_types={given!r} must be a list of {num_layers} names, one per layer, each {' or '.join(known)}; "
            f"correct the config"
        )
    return {"windows": tuple(window if name == known[0] else None for name in given)}


def upper_windows(values: Mapping[str, Any]) -> dict[str, Any]:
    """`layer_windows` of the Qwen families: from layer `max_window_layers` on, if `use_sliding_window` is set."""
    if not flag(values, "use_sliding_window"):
        return {}
    first = integer(values, "max_window_layers", at_least=0)
    types = [
        "sliding_attention" if layer >= first else "full_attention"
        for layer in range(integer(values, "num_hidden_layers"))
    ]
    return layer_windows(values, types)


def rope_of_layers(values: Mapping[str, Any], layer_type: str, theta: float) -> RopeConfig:
    """The positions of the layers of one type, in families where each type has its own.

    Args:
        layer_type: `full_attention` or `sliding_attention`. `rope_scaling` is about the former only.
        theta: the base, where `rope_parameters` of this type has none.
    """
    rope = section(section(values, "rope_parameters"), layer_type)
    if layer_type == "full_attention":
        rope |= section(values, "rope_scaling")
    return RopeConfig.from_hf({**values, "rope_scaling": None, "rope_parameters": {"rope_theta": theta, **rope}})
