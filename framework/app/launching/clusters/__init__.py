"""Launchers of clusters: each runs the cells of a sweep as jobs or tasks of another system."""
