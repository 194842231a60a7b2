"""Workloads that replay a trace of arrivals and lengths."""
