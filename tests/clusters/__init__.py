"""Sweeps on real clusters of one machine: `make clusters`, or `python -m tests.clusters.slurm` and the like.

Each starts its cluster, runs a sweep of 20 cells, kills a worker in the middle, resumes the sweep and looks at what is
there. Each says what it needs and is skipped where that is missing. They take minutes, so that pytest leaves them out.
"""
