"""Requests with the same pace share replicas, filled as far as that pace allows: tiers of objectives."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from framework.interfaces.router import Arrival, ReplicaView, Router
from framework.registry import ROUTERS


@ROUTERS.register("polyserve")
class PolyServe(Router):
    """Zhu et al., "PolyServe: Efficient Multi-SLO Serving at Scale" (arXiv 2507.17769). Requests are grouped by their
    objective of the time per output token (`tpot_slo_s`), and each group has replicas of its own. A request goes to
    the most loaded of them that still keeps the pace with one request more, so that others run empty and can be given
    to another group. A group without room takes an idle replica, or shares one of a tighter group that has room.

    Differences: the paper profiles steps, here a step of n requests takes `base_s` + n * `request_s`. It scales the
    number of servers, here the fleet is fixed. Its dynamic chunk sizes and its wait-aware admission belong to a
    scheduler. Where nothing has room the paper's requests wait; here they go to the least loaded replica of their
    group. Requests without that objective are a group that no pace limits: each takes the least loaded of its replicas.

    Args:
        base_s: seconds of a step with no request.
        request_s: seconds that each request adds to a step.
    """

    def __init__(self, *, base_s: float = 0.008, request_s: float = 0.0002) -> None:
        for name, value in (("base_s", base_s), ("request_s", request_s)):
            if not 0 <= value < inf:
                raise ValueError(f"router.{name}={value} must be a finite number of seconds, at least 0")
        self.base_s, self.request_s = base_s, request_s
        self._tier_of: dict[int, float] = {}
        """The pace of the group that a replica belongs to."""

    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        pace_s = inf if request.spec.tpot_slo_s is None else request.spec.tpot_slo_s
        for replica in replicas:
            if replica.num_requests == 0:
                self._tier_of.pop(replica.index, None)
        own = [one for one in replicas if self._tier_of.get(one.index) == pace_s]
        idle = [one for one in replicas if one.index not in self._tier_of]
        tighter = [one for one in replicas if self._tier_of.get(one.index, inf) < pace_s < inf]
        for group in (own, idle, tighter) if pace_s < inf else ():
            room = [one for one in group if self._keeps(self._tier_of.get(one.index, pace_s), one)]
            if room:  # the loosest of the tighter groups, and the most loaded replica
                best = max(room, key=lambda one: (self._tier_of.get(one.index, 0), one.num_requests, -one.index))
                self._tier_of.setdefault(best.index, pace_s)
                return best.index
        best = min([*own, *idle] or replicas, key=lambda one: (one.num_requests, one.num_prompt_tokens, one.index))
        self._tier_of.setdefault(best.index, pace_s)
        return best.index

    def _keeps(self, pace_s: float, replica: ReplicaView) -> bool:
        return self.base_s + self.request_s * (replica.num_requests + 1) <= pace_s
