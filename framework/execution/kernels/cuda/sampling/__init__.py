"""Sampling kernels: from logits to tokens and log-probabilities, without a sort and without waiting for the host."""

MAX_TOP = 20
"""The largest number of most likely tokens of a row that `top_logprobs` finds in one read. More need a sort."""
