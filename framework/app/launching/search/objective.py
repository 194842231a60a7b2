"""What a search looks for: metrics, and which direction of each is better."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from framework.config.check import check_objective
from framework.records.analysis.metric_names import direction

WAYS = {1: "maximize", -1: "minimize"}
_OWN_OBJECTIVES = ("ttft_slo_s", "tpot_slo_s", "e2e_slo_s")
_WITH_OBJECTIVES = {"jsonl": (*_OWN_OBJECTIVES, "deadline_s"), "trace": _OWN_OBJECTIVES}
"""Workloads whose requests may carry limits of their own, and the keys that do it."""


def find_directions(names: Sequence[str], given: Any, percentiles: Sequence[float] = (50, 90, 99)) -> dict[str, str]:
    """`maximize` or `minimize` for each metric: what is better by its name, unless `given` (one or a list) says.

    Raises:
        ValueError: no metric, one twice, one that no run has, or one of which neither more nor less is better.
    """
    if not names:
        raise ValueError("objective=[]: a search needs a metric, such as objective=[output_tokens_per_s], or several")
    check_objective(names, percentiles)
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"objective=[{','.join(names)}] names {twice[0]} twice")
    ways = list(given) if OmegaConf.is_list(given) or isinstance(given, list | tuple) else [given] * len(names)
    if len(ways) != len(names) or any(way not in (None, *WAYS.values()) for way in ways):
        raise ValueError(
            f"hydra.sweeper.direction={given}: must be maximize or minimize for each of objective=[{','.join(names)}], "
            "or null, which takes it from the metric"
        )
    found = {}
    for name, way in zip(names, ways, strict=True):
        better = WAYS.get(direction(name))
        if way is None and better is None:
            raise ValueError(
                f"objective=[{','.join(names)}]: neither more nor less {name} is better in itself; say which you look "
                "for with hydra.sweeper.direction=maximize or minimize, a list for several metrics"
            )
        if way is not None and better is not None and way != better:
            print(f"note: hydra.sweeper.direction={way} looks for the worst {name}, not the best", file=sys.stderr)
        found[name] = str(way or better)
    return found


def check_measured(names: Sequence[str], config: Mapping[str, Any]) -> None:
    """Refuse goodput and SLO attainment if no limit says what is good, since they would be undefined in each cell.

    Raises:
        ValueError: naming the keys that set one.
    """
    wanted = [name for name in names if name.endswith(("goodput_requests_per_s", "slo_attainment"))]
    if not wanted or has_objective(config):
        return
    keys = _WITH_OBJECTIVES.get(config["workload"]["name"])
    also = f", and no request of {config['workload']['path']} has {' or '.join(keys)}" if keys else ""
    raise ValueError(
        f"objective=[{wanted[0]}]: slo.ttft_s, slo.tpot_s and slo.e2e_s are null{also}, so that no request is good or "
        "bad; set one, such as slo.ttft_s=0.5"
    )


def has_objective(config: Mapping[str, Any]) -> bool:
    """Whether a limit says which requests are good: one of `slo.*`, or limits in the file of the requests."""
    if any(limit is not None for limit in config["slo"].values()):
        return True
    keys = _WITH_OBJECTIVES.get(config["workload"]["name"])
    return keys is not None and _mentions(config["workload"].get("path"), keys)


def _mentions(path: str | None, keys: Sequence[str]) -> bool:
    from framework.workloads.text_file import open_text

    if path is None:
        return False
    with open_text(path) as file:
        return any(f'"{key}"' in line for line in file for key in keys)
