"""Weights, configs and tokenizers from a folder, the hub, a GGUF file or a seed."""
