"""Requests in. Importing this package registers the framework's workloads."""

from framework.workloads import chat, jsonl, nano_bench, synthetic
from framework.workloads.base import TimedRequest, Workload, WorkloadContext
from framework.workloads.drive import drive
from framework.workloads.observer import Observer
from framework.workloads.prepare import prepare

__all__ = [
    "Observer",
    "TimedRequest",
    "Workload",
    "WorkloadContext",
    "chat",
    "drive",
    "jsonl",
    "nano_bench",
    "prepare",
    "synthetic",
]
