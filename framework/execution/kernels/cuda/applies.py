"""Whether the fused kernels of a GPU compute what the layers of a model do. Loads neither torch nor Triton."""

from __future__ import annotations

from framework.models.config import ModelConfig


def unfused_reason(config: ModelConfig) -> str | None:
    """What the layers of `config` have that the fused kernels lack; None if they apply.

    It looks at the properties of the layers and not at the name of the family, so a family that is new gets the fused
    kernels if its layers are such.
    """
    norms, rope = config.norms, config.rope
    if config.own_layers:
        return f"family {config.family} builds its {' and '.join(config.own_layers)} itself"
    if config.experts is not None:
        return f"the model has {config.experts.number} experts, which the fused kernels lack"
    for value, plain, what in (
        (config.activation, "silu", "a gate by"),
        ((norms.before_attention is None, norms.before_mlp is None), (False, False), "blocks without a norm before"),
        ((norms.after_attention, norms.after_mlp), (None, None), "norms after the blocks, such as"),
        (config.qk_norm in (None, "head"), True, "a norm over all queries"),
        (rope.partial, 1.0, "a rotation of a part of each head,"),
        (rope.interleaved, False, "a rotation of neighbours"),
        (config.window_rope, None, "positions of their own in layers with a window"),
        (config.nope_layers, (), "layers without positions:"),
        (config.embedding_scale, 1.0, "an embedding times"),
        (config.residual_scale, 1.0, "blocks times"),
        (config.logit_scale, 1.0, "logits times"),
        (config.logit_softcap, None, "a soft cap of the logits of"),
    ):
        if value != plain:
            shown = f" {value}" if isinstance(value, str | float) else ""
            return f"the model has {what}{shown}, which the fused kernels lack"
    return None
