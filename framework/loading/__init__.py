"""Weights, configs and tokenizers from a folder, the hub, a GGUF file or a seed."""

from framework.loading.load import LoadedModel, load_config, load_model, load_tokenizer
from framework.loading.tokenizer import Tokenizer

__all__ = ["LoadedModel", "Tokenizer", "load_config", "load_model", "load_tokenizer"]
