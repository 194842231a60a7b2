"""Where the prompt is cached, if that saves more than it costs to be served there; else where it costs least."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from framework.interfaces.router import Arrival, ReplicaView, Router
from framework.registry import ROUTERS


@ROUTERS.register("preble")
class Preble(Router):
    """Srivatsa et al., "Preble: Efficient Distributed Prompt Scheduling for LLM Serving" (ICLR'25, arXiv 2407.00023),
    global scheduling E2. If more of a prompt is cached somewhere than would be left to compute there, the request goes
    there (exploitation), to the least loaded one of several. Else it goes where the sum is least (exploration) of what
    the replica was sent in the last `window_s` seconds, of what has to be evicted for it, and of its missing tokens.
    A replica with `balance` times the load of the least loaded one gives what it would exploit away.

    Differences: costs are in tokens, where the paper fits seconds per token, so that an output token counts as
    `output_weight` prompt tokens. What a replica caches is what it reported (`asks_cached_blocks`) instead of a tree
    that the router keeps. Blocks to be evicted count by their number; the paper weighs them by how often they were hit.
    Cached blocks that no running request holds count as free (`num_used_blocks` leaves them out), so that the term of
    eviction is about 0 until running requests fill the memory. In the paper, evicting them has its cost.
    Prefixes are not copied to further replicas ahead of time.

    Args:
        window_s: seconds for which a request counts as load, after its arrival.
        balance: ratio of loads from which on balance comes before locality.
        output_weight: what an output token costs, in prompt tokens.
    """

    asks_cached_blocks = True

    def __init__(self, *, window_s: float = 60.0, balance: float = 2.0, output_weight: float = 4.0) -> None:
        for name, value, least in (
            ("window_s", window_s, 0),
            ("balance", balance, 1),
            ("output_weight", output_weight, 0),
        ):
            if not least <= value < float("inf"):
                raise ValueError(f"router.{name}={value} must be a finite number, at least {least}")
        self.window_s, self.balance, self.output_weight = window_s, balance, output_weight
        self._sent: deque[tuple[float, int, float]] = deque()
        """Arrival, replica and cost of what was sent, the oldest first."""
        self._load: dict[int, float] = {}
        self._num_ended, self._num_output = 0, 0

    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        while self._sent and self._sent[0][0] < request.arrival_s - self.window_s:
            _, index, cost = self._sent.popleft()
            self._load[index] -= cost
        loads = {replica.index: self._load.get(replica.index, 0.0) for replica in replicas}
        block_tokens = request.num_prompt / max(1, len(path))
        missing = {one.index: request.num_prompt - block_tokens * one.num_cached_blocks for one in replicas}
        best = min(replicas, key=lambda one: (missing[one.index], loads[one.index], one.index)).index
        exploits = missing[best] < request.num_prompt / 2
        if not exploits or loads[best] > self.balance * min(loads.values()) + request.num_prompt:
            best = min(replicas, key=lambda one: (self._cost(one, loads, missing, block_tokens), one.index)).index
        mean_output = self._num_output / self._num_ended if self._num_ended else request.num_prompt / 4
        cost = missing[best] + self.output_weight * mean_output
        self._sent.append((request.arrival_s, best, cost))
        self._load[best] = loads[best] + cost
        return best

    @staticmethod
    def _cost(replica: ReplicaView, loads: dict[int, float], missing: dict[int, float], block_tokens: float) -> float:
        free_tokens = (replica.num_blocks - replica.num_used_blocks) * block_tokens
        evicted = max(0.0, missing[replica.index] - free_tokens)
        return loads[replica.index] + evicted + missing[replica.index]

    def on_finish(self, request: Arrival, index: int, num_output: int) -> None:
        self._num_ended += 1
        self._num_output += num_output
