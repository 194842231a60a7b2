"""The random batches and the oracle of `framework.conformance`."""

from framework.conformance.attention_cases import Problem, Target, check, layout, oracle, problems

__all__ = ["Problem", "Target", "check", "layout", "oracle", "problems"]
