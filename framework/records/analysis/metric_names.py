"""What the name of a metric says: whether more is better, and which metrics tell most."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from framework.records.analysis.cells import Cell
from framework.records.metrics.percentiles import needed_count, percent_of
from framework.records.metrics.quality import ATTENTION

_CLIENT = re.compile(r"^client/.*/(?=(ttft_s|goodput_requests_per_s)\b)")
_LESS_IS_BETTER = (
    *("duration_s", "ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s", "plan_s", "startup_s", "peak_memory_gib"),
    *("preemptions", "evictions", "padding_fraction", "requests_rejected", "requests_failed", "requests_aborted"),
    *("steps", "unfair_service_fraction", "length_error_tokens", *ATTENTION),
)
_MORE_IS_BETTER = (
    *("output_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput_requests_per_s", "requests_completed"),
    *("prefix_cache_hit_rate", "block_hit_rate", "memory_bandwidth_utilization", "model_flops_utilization"),
    *("fairness_index", "slo_attainment", "ttft_attainment", "tpot_attainment", "e2e_attainment"),
    *("deadline_attainment", "weighted_attainment", "length_rank_correlation"),
)
_DEFAULT = (
    *(
        "output_tokens_per_s",
        "goodput_requests_per_s",
        "slo_attainment",
        "ttft_s/mean",
        "ttft_s/p99",
        "tpot_s/mean",
        "itl_s/p99",
    ),
    *("fairness_index", "prefix_cache_hit_rate", "preemptions"),
)


def direction(metric: str) -> int:
    """1 if more is better, -1 if less is, 0 if that cannot be said."""
    base, _, statistic = _CLIENT.sub("", metric).partition("/")
    if statistic == "count":
        return 0
    return (base in _MORE_IS_BETTER) - (base in _LESS_IS_BETTER)


def too_few(metric: str, cells: Sequence[Cell]) -> int | None:
    """The smallest number of values behind the percentile `metric` in one of `cells`, if it is too small for it.

    None for other metrics, and where there are enough or the number is not known.
    """
    name, _, statistic = metric.rpartition("/")
    percent = percent_of(statistic)
    if percent is None:
        return None
    counts = [count for cell in cells if metric in cell.metrics and (count := _count(name, cell)) is not None]
    return int(min(counts)) if counts and min(counts) < needed_count(percent) else None


def _count(name: str, cell: Cell) -> float | None:
    """How many values a distribution has; older records say only how many requests completed, and took steps."""
    if (count := cell.metrics.get(f"{name}/count")) is not None or name == "itl_s":
        return count
    return cell.metrics.get("steps" if name == "plan_s" else "requests_completed")


def known_metrics(cells: Sequence[Cell]) -> list[str]:
    """Metrics that at least one cell defines, in the order of the record."""
    return list(dict.fromkeys(name for cell in cells for name in cell.metrics))


def default_metrics(cells: Sequence[Cell]) -> list[str]:
    """The metrics that tell most, among those that these cells define and that differ between them."""
    known = [name for name in _DEFAULT if any(name in cell.metrics for cell in cells)]
    varying = [name for name in known if len({cell.metrics.get(name) for cell in cells}) > 1]
    return varying or known or known_metrics(cells)[:4]


def is_approximate(cell: Cell) -> bool:
    """Whether it ran an attention backend that is not exact."""
    return cell.keys.get("effective.attention_exact") is False


def with_quality(names: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    """`names`, and the quality of attention if one of `cells` traded it for speed."""
    added = ATTENTION if any(map(is_approximate, cells)) else ()
    return list(dict.fromkeys([*names, *added]))


def check_metrics(names: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    """`names` without repeats.

    Raises:
        ValueError: no cell defines one of them; names those that are known, the closest first.
    """
    known = known_metrics(cells)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            others = [other for other in known if other not in close]
            raise ValueError(f"no record has the metric {name!r}; known: {', '.join([*close, *others])}")
    return list(dict.fromkeys(names))


def show_number(value: float | None) -> str:
    """Four significant digits, without an exponent for large numbers. A dash stands for undefined."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
