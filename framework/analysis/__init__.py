"""Comparing records and policies, after or without a run."""
