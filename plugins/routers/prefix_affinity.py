"""Where the prompt's prefix was sent before, unless that replica has too much to do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence

from framework.interfaces.router import Arrival, ReplicaView, Router
from framework.registry import ROUTERS


@ROUTERS.register("prefix_affinity")
class PrefixAffinity(Router):
    """The replica that was sent the longest prefix of the prompt; the least loaded one where that is short or unfair.

    It follows the policy `cache_aware` of SGLang's router, with the defaults of its gateway. If the load is unbalanced
    (both `balance_abs` and `balance_rel` are exceeded), it takes the least loaded replica. Otherwise, if more than
    `min_match` of the prompt's blocks were sent to some replica, it takes the one that got the most of them. Otherwise
    it takes the least loaded one.

    What a replica holds is estimated from what was sent there. Once its KV cache is full, what was sent least recently
    is forgotten first. Prompts that still wait count too, and evictions that outputs cause are not known. Preble
    (arXiv 2407.00023) weighs the same two sides by a cost of both.
    """

    def __init__(self, *, min_match: float = 0.3, balance_abs: int = 64, balance_rel: float = 1.5) -> None:
        """
        Args:
            min_match: share of a prompt's full blocks that must match before affinity decides, in [0, 1].
            balance_abs: unfinished requests by which the most loaded replica may exceed the least loaded one.
            balance_rel: ratio of the two that must be exceeded too, at least 1.
        """
        if not 0 <= min_match <= 1:
            raise ValueError(f"router.min_match={min_match} must be in [0, 1]; 0 follows any match")
        if balance_abs < 0:
            raise ValueError(f"router.balance_abs={balance_abs} must be at least 0")
        if not balance_rel >= 1:
            raise ValueError(f"router.balance_rel={balance_rel} must be at least 1")
        self.min_match, self.balance_abs, self.balance_rel = min_match, balance_abs, balance_rel
        self._held: dict[int, OrderedDict[int, None]] = {}

    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        least = min(replicas, key=lambda replica: (replica.num_requests, replica.num_prompt_tokens, replica.index))
        index = least.index
        most = max(replica.num_requests for replica in replicas)
        unbalanced = most - least.num_requests > self.balance_abs and most > self.balance_rel * least.num_requests
        if path and not unbalanced:
            matches = [self._match(replica.index, path) for replica in replicas]
            if max(matches) > self.min_match * len(path):
                best = (replica for replica, match in zip(replicas, matches, strict=True) if match == max(matches))
                index = min(best, key=lambda replica: (replica.num_requests, replica.index)).index
        self._remember(replicas[index], path)
        return index

    def _match(self, index: int, path: Sequence[int]) -> int:
        held: Container[int] = self._held.get(index, ())
        for count, block in enumerate(path):
            if block not in held:
                return count
        return len(path)

    def _remember(self, replica: ReplicaView, path: Sequence[int]) -> None:
        """Deepest block first, so that a prefix is forgotten from its end."""
        held = self._held.setdefault(replica.index, OrderedDict())
        for block in reversed(path):
            held[block] = None
            held.move_to_end(block)
        while len(held) > replica.num_blocks:
            held.popitem(last=False)
