"""Makes a loaded model fast on a CPU: packed weights and fused elementwise operations."""

from __future__ import annotations

import functools

from torch import nn

from framework.execution.kernels.cpu import native
from framework.execution.kernels.cpu.blocks import BlockLinear, block_rows
from framework.execution.kernels.cpu.layers import NativeRMSNorm, NativeRotaryEmbedding, NativeSiluAndMul
from framework.execution.kernels.cpu.linear import linear_kernel_name, pack_linear
from framework.models.decoder import DecoderLM
from framework.models.layers.activation import SiluAndMul
from framework.models.layers.norm import RMSNorm
from framework.models.layers.rotary import RotaryEmbedding


def optimize_for_cpu(model: DecoderLM) -> dict[str, object]:
    """Replace the layers that have a faster version, in place. Call this once, after loading.

    A packed weight replaces the original, which becomes a meta tensor of the same shape. Only a tied embedding is held
    twice, since look-ups still need it. One in the blocks of a GGUF file is mapped from that file.

    Returns:
        The choices, for the record: `linear_kernel` (`blocks` if all weights are in the blocks of a GGUF file,
        `blocks, native` if some are) and `elementwise_kernel`, and `native_unavailable` with the reason if the C++
        kernels are not available.
    """
    dtype = model.embed_tokens.weight.dtype
    name = linear_kernel_name(dtype)
    in_blocks = [layer for _, layer in model.linear_layers() if layer.pieces]
    if model.embed_tokens.pieces:
        model.embed_tokens.kernel = functools.partial(block_rows, model.embed_tokens.pieces[0], dtype=dtype)
    for layer in in_blocks:
        layer.kernel = BlockLinear(layer.pieces, layer.bias)
        layer.pieces = ()
    if name != "torch":
        for _, layer in model.linear_layers():
            if layer.kernel is not None:
                continue
            layer.kernel = pack_linear(layer.weight, layer.bias)
            if layer.weight is not model.embed_tokens.weight:
                layer.weight = nn.Parameter(layer.weight.to("meta"), requires_grad=False)
    reason = native.unavailable_reason()
    fused = reason is None and dtype in native.SUPPORTED_DTYPES
    if fused:
        _fuse_elementwise(model)
    if in_blocks:
        name = "blocks" if len(in_blocks) == len(list(model.linear_layers())) else f"blocks, {name}"
    chosen: dict[str, object] = {"linear_kernel": name, "elementwise_kernel": "native" if fused else "torch"}
    if reason is not None:
        chosen["native_unavailable"] = reason
    return chosen


def _fuse_elementwise(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is RMSNorm:
                setattr(parent, name, NativeRMSNorm(child))
            elif type(child) is SiluAndMul:
                setattr(parent, name, NativeSiluAndMul())
            elif type(child) is RotaryEmbedding:
                setattr(parent, name, NativeRotaryEmbedding(child))
