"""Trackers, which export records: each module registers one or holds what several of them share."""
