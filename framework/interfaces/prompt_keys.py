"""Prompts given by keys. Traces have them: they say which blocks two prompts share, and not which tokens these hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Content = bytes | int | tuple[int, ...]
"""The content of a block, for comparison with that of another: the bytes of its token ids, or the keys for them."""


@dataclass(slots=True, frozen=True)
class PromptKeys:
    """Key i stands for tokens `i * key_tokens` to `(i + 1) * key_tokens` of a prompt; the last one may cover fewer.

    Equal keys stand for equal tokens, and two prompts share a block if all keys up to it are equal. A prompt without
    keys shares nothing. The block size has to divide `key_tokens` or be a multiple of it, so that this is exact.
    """

    keys: Sequence[int]
    key_tokens: int
    block_size: int
    num_tokens: int
    """The number of leading tokens of the prompt that the keys stand for. Only these can be shared."""

    @classmethod
    def of(cls, keys: Sequence[int], *, key_tokens: int, block_size: int, num_prompt: int) -> PromptKeys:
        """Check the values and construct the object.

        Raises:
            ValueError: neither of the two sizes divides the other, or there are more keys than the prompt has room for.
        """
        if key_tokens < 1:
            raise ValueError(f"key_tokens={key_tokens} must be at least 1: the tokens that one prompt key stands for")
        if key_tokens % block_size and block_size % key_tokens:
            raise ValueError(
                f"prompt keys of {key_tokens} tokens do not line up with engine.block_size={block_size}: neither "
                f"divides the other; set engine.block_size={key_tokens & -key_tokens}"
            )
        if len(keys) > -(-num_prompt // key_tokens):
            raise ValueError(
                f"a prompt of {num_prompt} tokens has {len(keys)} keys of {key_tokens} tokens each; at most "
                f"{-(-num_prompt // key_tokens)} have anything to stand for"
            )
        return cls(keys, key_tokens, block_size, min(num_prompt, len(keys) * key_tokens))

    def content(self, index: int) -> Content:
        """The content of block `index` of the prompt, which lies within `num_tokens`."""
        if self.key_tokens >= self.block_size:
            # Which part of the key's tokens it is follows from its parents, which are compared too.
            return self.keys[index // (self.key_tokens // self.block_size)]
        keys_a_block = self.block_size // self.key_tokens
        return tuple(self.keys[index * keys_a_block : (index + 1) * keys_a_block])
