"""Service level objectives: when a served request counts as good."""

from __future__ import annotations

from dataclasses import dataclass

from framework.interfaces.records import RequestRecord
from framework.records.metrics.latency import e2e_s, tpot_s, ttft_s


@dataclass(slots=True, frozen=True, kw_only=True)
class Slo:
    """Limits in seconds; None sets none.

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

    @property
    def is_set(self) -> bool:
        return (self.ttft_s, self.tpot_s, self.e2e_s) != (None, None, None)

    def met_by(self, request: RequestRecord) -> bool:
        """Whether `request` met every limit, its own `deadline_s` for the first token included.

        A limit on what is undefined for it (the TPOT of a single token) is met.
        """
        measured = (
            (ttft_s(request), self.ttft_s),
            (tpot_s(request), self.tpot_s),
            (e2e_s(request), self.e2e_s),
            (request.first_token_s, request.deadline_s),
        )
        return all(value is None or limit is None or value <= limit for value, limit in measured)
