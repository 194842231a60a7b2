"""A model's config as cost models see it."""

from __future__ import annotations

import dataclasses

from framework.interfaces.cost_model import ModelShape
from framework.models.config import ModelConfig


def model_shape(config: ModelConfig) -> ModelShape:
    """The dimensions alone."""
    return ModelShape(**{field.name: getattr(config, field.name) for field in dataclasses.fields(ModelShape)})
