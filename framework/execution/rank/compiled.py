"""torch.compile of a GPU's layers, at two levels."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from framework.models.decoder import DecoderLM
from framework.models.layers.activation import SiluAndMul
from framework.models.layers.norm import QKNorm, RMSNorm
from framework.models.layers.rotary import RotaryEmbedding


def compile_model(model: DecoderLM, level: str, mode: str | None) -> dict[str, object]:
    """Compile, in place and lazily, and say so for the record. Compiled artefacts are kept between processes.

    Args:
        level: off; ops: norms, rotation and gate; model: a layer before and after its attention.
        mode: as of `torch.compile`; None for its default.
    """
    if level == "off":
        return {}
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "servelab" / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))

    def compiled(function: Any) -> Any:
        return torch.compile(function, mode=mode, dynamic=True)

    if level == "model":
        for layer in model.layers:
            layer.before_attention = compiled(layer.before_attention)  # type: ignore[method-assign]
            layer.after_attention = compiled(layer.after_attention)  # type: ignore[method-assign]
    for module in model.modules():
        if level == "ops" and isinstance(module, RMSNorm | QKNorm | SiluAndMul):
            module.forward = compiled(module.forward)  # type: ignore[method-assign]
            if isinstance(module, RMSNorm):
                module.add_and_norm = compiled(module.add_and_norm)  # type: ignore[method-assign]
        elif level == "ops" and isinstance(module, RotaryEmbedding):
            module.rotate = compiled(module.rotate)  # type: ignore[method-assign]
    return {"compile_level": level, "compile_mode": mode or "default"}


def compile_seconds() -> float:
    """The wall time that this process has spent in torch.compile so far."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and importing it takes seconds
        return 0.0
    from torch._dynamo.utils import compilation_time_metrics

    return sum(compilation_time_metrics.get("_compile.compile_inner", []))
