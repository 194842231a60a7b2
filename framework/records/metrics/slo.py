"""Service level objectives: when a served request counts as good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from framework.interfaces.records import RequestRecord
from framework.records.metrics.latency import e2e_s, tpot_s, ttft_s

_MEASURED: dict[str, Callable[[RequestRecord], float | None]] = {"ttft": ttft_s, "tpot": tpot_s, "e2e": e2e_s}
OBJECTIVES = (*_MEASURED, "deadline")
"""The names of the objectives in metrics: `ttft_attainment` and so on."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Slo:
    """Limits in seconds for requests without limits of their own; None sets none.

    Raises:
        ValueError: for a limit that is not above 0.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise ValueError(f"slo.{name}={limit!r} must be above 0 seconds; pass null for no objective")

    def limit(self, objective: str, request: RequestRecord) -> float | None:
        """The limit that one of `OBJECTIVES` sets for `request`: its own or, if it has none, that of all."""
        if objective == "deadline":
            return request.deadline_s
        own: float | None = getattr(request, f"{objective}_slo_s")
        return getattr(self, f"{objective}_s") if own is None else own

    def is_set_for(self, requests: Sequence[RequestRecord]) -> bool:
        """Whether any of them has an objective, or all would."""
        if (self.ttft_s, self.tpot_s, self.e2e_s) != (None, None, None):
            return True
        return any(self.limit(objective, request) is not None for request in requests for objective in OBJECTIVES)

    def met(self, objective: str, request: RequestRecord) -> bool:
        """Whether `request` met this objective. A limit on what is undefined for it (the TPOT of a single token) is
        met, and so is one that it does not have.
        """
        limit = self.limit(objective, request)
        measured = request.first_token_s if objective == "deadline" else _MEASURED[objective](request)
        return limit is None or measured is None or measured <= limit

    def met_by(self, request: RequestRecord) -> bool:
        """Whether `request` met every objective."""
        return all(self.met(objective, request) for objective in OBJECTIVES)


def attainment(
    requests: Sequence[RequestRecord], completed: Sequence[RequestRecord], slo: Slo
) -> dict[str, float | None]:
    """The share of the requests with an objective that completed and met it, for each one: `ttft_attainment`,
    `tpot_attainment`, `e2e_attainment` and `deadline_attainment` (of the first token). `weighted_attainment` is the
    share of the weight of all requests that is on those that completed and met every objective. None without any.
    """
    shares: dict[str, float | None] = {}
    for objective in OBJECTIVES:
        num_asked = sum(slo.limit(objective, r) is not None for r in requests)
        num_met = sum(slo.limit(objective, r) is not None and slo.met(objective, r) for r in completed)
        shares[f"{objective}_attainment"] = num_met / num_asked if num_asked else None
    total = sum(r.weight for r in requests)
    good = sum(r.weight for r in completed if slo.met_by(r))
    shares["weighted_attainment"] = good / total if total > 0 and slo.is_set_for(requests) else None
    return shares
