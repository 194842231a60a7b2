"""Workloads. Each module registers one or holds what several of them share."""
