"""Launchers that hand the cells to a cluster."""
