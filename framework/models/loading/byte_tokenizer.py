"""A tokenizer that needs no files, with one token per byte, for models with random weights."""

from __future__ import annotations

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from framework.models.loading.tokenizer import Tokenizer

_SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
NUM_BYTE_TOKENS = 256 + len(_SPECIAL_TOKENS)

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> Tokenizer:
    """Ids 0 to 255 are bytes (in the order of GPT-2's alphabet), then the ChatML markers and `<|endoftext|>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL_TOKENS])
    return Tokenizer(backend, chat_template=_CHAT_TEMPLATE, special_tokens={"eos_token": "<|endoftext|>"})
