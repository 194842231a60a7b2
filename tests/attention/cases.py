"""The random batches and the oracle of `framework.conformance`."""

from framework.conformance.checks.attention_cases import Problem, Target, check, layout, oracle, problems

__all__ = ["Problem", "Target", "check", "layout", "oracle", "problems"]
