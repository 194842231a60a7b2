"""What `transformers` makes of a GGUF file: its own reader for config, tensors and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from framework.models.loading.gguf_file import open_gguf


def reference_model(path: Path, config: Any = None) -> Any:
    """The float32 model. Not by `from_pretrained`, which wants the package accelerate for GGUF files.

    `config` saves a second reading, which takes seconds for a large vocabulary.
    """
    config = config or AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    unknown = model.load_state_dict(tensors, strict=False)
    assert not unknown.unexpected_keys
    assert unknown.missing_keys in ([], ["lm_head.weight"])
    model.tie_weights()
    return model.eval()


def model_of_our_tensors(path: Path, config: Any) -> Any:
    """Like `reference_model`, with the tensors of our reader. It is quick and meant for tensors that were compared."""
    file = open_gguf(path)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = {name: torch.from_numpy(file.read(stored)) for name, stored in file.hf_names().items()}
    model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    return model.eval()


def reference_tokenizer(path: Path) -> Any:
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
