"""Prompts given by keys: traces that say which blocks two prompts share, and not which tokens these hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Content = bytes | int | tuple[int, ...]
"""What a block holds, as far as equality goes: the bytes of its token ids, or the keys that stand for them."""


@dataclass(slots=True, frozen=True)
class PromptKeys:
    """Key i stands for tokens `i * key_tokens` to `(i + 1) * key_tokens` of a prompt; the last one may cover fewer.

    Equal keys hold equal tokens, and two prompts share a block if all keys up to it are equal. No keys at all: the
    prompt shares nothing. Needs a block size that divides `key_tokens`, or is a multiple of it: then this is exact.
    """

    keys: Sequence[int]
    key_tokens: int
    block_size: int
    num_tokens: int
    """Leading tokens of the prompt that keys stand for, hence those that can be shared."""

    @classmethod
    def of(cls, keys: Sequence[int], *, key_tokens: int, block_size: int, num_prompt: int) -> PromptKeys:
        """Check and build.

        Raises:
            ValueError: sizes of which neither divides the other, or more keys than the prompt has room for.
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
        """What block `index` of the prompt holds; it lies within `num_tokens`."""
        if self.key_tokens >= self.block_size:
            # Which part of the key's tokens it is follows from its parents, which are compared too.
            return self.keys[index // (self.key_tokens // self.block_size)]
        keys_a_block = self.block_size // self.key_tokens
        return tuple(self.keys[index * keys_a_block : (index + 1) * keys_a_block])
