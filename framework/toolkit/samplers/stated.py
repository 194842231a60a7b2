"""The distributions that samplers state, for one row in float64. They share no code with the sampling itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from framework.interfaces.sampling_params import SamplingParams
from framework.toolkit.samplers.temperature import MIN_TEMPERATURE

if TYPE_CHECKING:
    import numpy as np

Kept = Callable[["np.ndarray"], "np.ndarray"]
"""Takes probabilities [V] and returns the tokens that stay, [V] bool."""


def masked_softmax(logits_V: np.ndarray, params: SamplingParams, *filters: Kept) -> np.ndarray:
    """The softmax at the request's temperature, over what each filter leaves of what the one before it left."""
    import numpy as np

    if params.temperature < MIN_TEMPERATURE:
        return np.asarray(np.arange(len(logits_V)) == logits_V.argmax(), dtype=np.float64)
    probs_V = np.exp((logits_V - logits_V.max()) / params.temperature)
    probs_V /= probs_V.sum()
    for kept in filters:
        probs_V = np.where(kept(probs_V), probs_V, 0.0)
        probs_V /= probs_V.sum()
    return probs_V


def top_k(k: int) -> Kept:
    """The `k` most likely tokens and those equal to the last of them; 0 keeps all."""
    return lambda probs_V: probs_V >= sorted(probs_V)[-min(k or len(probs_V), len(probs_V))]


def top_p(p: float) -> Kept:
    """The fewest most likely tokens with a probability of at least `p`, and those equal to the last of them."""
    return lambda probs_V: probs_V >= sorted(probs_V, reverse=True)[num_below(p, sorted(probs_V, reverse=True))]


def num_below(mass: float, probs: Sequence[float]) -> int:
    """How many of the leading `probs` do not reach `mass` together; at most all but one."""
    total = 0.0
    for number, prob in enumerate(probs):
        total += prob
        if total >= mass:
            return number
    return len(probs) - 1


def min_p(share: float) -> Kept:
    """Tokens at least `share` times as likely as the most likely one."""
    return lambda probs_V: probs_V >= share * probs_V.max()
