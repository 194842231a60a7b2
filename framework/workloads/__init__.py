"""Requests in: each module registers a workload or holds what several of them share."""
