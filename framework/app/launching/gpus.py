"""Which GPUs there are, and which cells hold them. Nothing here may initialise CUDA, since cells are forked."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from framework.registry import EXECUTORS

_LAUNCHERS_HERE = ("basic", "process", "in_process", "slurm_rehearsal")


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by names that CUDA_VISIBLE_DEVICES takes; if it is set, those in it."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu.strip() for gpu in chosen.split(",") if gpu.strip() not in ("", "-1", "NoDevFiles")]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=60
        )
    except FileNotFoundError:
        return []
    return done.stdout.split() if done.returncode == 0 else []


def gpus_wanted(executor: Mapping[str, Any], num_gpus: int) -> int:
    """GPUs that a cell needs by its `executor` section, on a machine that has `num_gpus`."""
    return int(EXECUTORS.get(executor["name"]).num_gpus(executor, num_gpus))


def gpus_elsewhere(hydra: DictConfig) -> int | None:
    """GPUs that the launcher asks for on the machine of a cell; None for a launcher that runs cells on this machine.

    A launcher that says nothing of GPUs is taken to find one.
    """
    if hydra.runtime.choices.get("hydra/launcher") in _LAUNCHERS_HERE:
        return None
    asked = [OmegaConf.select(hydra.launcher, key) for key in ("gpus_per_node", "ray.remote.num_gpus")]
    return next((math.ceil(number) for number in asked if number is not None), 1)


class Leases:
    """GPUs that are free, and how many cells may run at once.

    Args:
        gpus: names for CUDA_VISIBLE_DEVICES.
        max_parallel: cells at once; None: GPUs are the limit, and one cell at a time runs without any.
    """

    def __init__(self, gpus: list[str], max_parallel: int | None) -> None:
        self.num_gpus = len(gpus)
        self._free = list(gpus)
        self._max_parallel = max_parallel
        self._num_running = self._num_running_without = 0

    def take(self, count: int) -> list[str] | None:
        """`count` GPUs for one more cell, or None if it has to wait."""
        assert count <= self.num_gpus, f"{count} GPUs of {self.num_gpus} would never be free"
        if self._max_parallel is not None and self._num_running >= self._max_parallel:
            return None
        if self._max_parallel is None and not count and self._num_running_without:
            return None
        if count > len(self._free):
            return None
        self._num_running += 1
        self._num_running_without += not count
        taken, self._free = self._free[:count], self._free[count:]
        return taken

    def give_back(self, gpus: list[str]) -> None:
        """The cell that got `gpus` has ended."""
        self._num_running -= 1
        self._num_running_without -= not gpus
        self._free = sorted([*self._free, *gpus], key=_by_number)


def _by_number(gpu: str) -> tuple[int, str]:
    return (int(gpu), "") if gpu.isdigit() else (0, gpu)
