"""Workloads are known by name in whatever order tests run."""

from framework.registry.discovery import discover

discover()
