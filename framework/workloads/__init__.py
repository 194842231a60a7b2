"""Requests in. Importing this package registers the framework's workloads."""

from framework.workloads import azure, burstgpt, chat, jsonl, mooncake, nano_bench, sessions, synthetic, trace
from framework.workloads.base import TimedRequest, Workload, WorkloadContext
from framework.workloads.drive import drive
from framework.workloads.observer import Observer
from framework.workloads.prepare import prepare

__all__ = [
    "Observer",
    "TimedRequest",
    "Workload",
    "WorkloadContext",
    "azure",
    "burstgpt",
    "chat",
    "drive",
    "jsonl",
    "mooncake",
    "nano_bench",
    "prepare",
    "sessions",
    "synthetic",
    "trace",
]
