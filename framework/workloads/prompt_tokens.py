"""Token ids for prompts that a trace describes by keys only, for executors that compute on real tokens."""

from __future__ import annotations

from array import array

import numpy as np

from framework.interfaces.workload import TimedRequest

# Two streams of one seed, so that no key gives the tokens of a prompt without keys.
_KEYED, _PRIVATE = 0, 1


def draw_prompt(request: TimedRequest, index: int, *, seed: int, vocab_size: int) -> array[int]:
    """Ids uniform below `vocab_size` [num_prompt_tokens]: a function of the seed and, for each part, of its key.

    Equal keys give equal tokens in every request. What no key covers is drawn for `index`, the request's place in the
    workload, alone.
    """
    assert request.num_prompt_tokens is not None
    assert request.prompt_keys is not None
    ids: array[int] = array("i")
    for key in request.prompt_keys:
        ids.frombytes(_draw(seed, _KEYED, key, request.key_tokens, vocab_size))
    del ids[request.num_prompt_tokens :]
    if left := request.num_prompt_tokens - len(ids):
        ids.frombytes(_draw(seed, _PRIVATE, index, left, vocab_size))
    return ids


def _draw(seed: int, stream: int, number: int, num_tokens: int, vocab_size: int) -> bytes:
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, number))
    rng = np.random.Generator(np.random.PCG64(sequence))
    return rng.integers(vocab_size, size=num_tokens, dtype=np.intc).tobytes()
