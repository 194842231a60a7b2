"""The checks of eviction policies: in the engine under a random scheduler, over chains of blocks, and their cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from framework.conformance.checks.eviction_cost import decision_cost
from framework.conformance.kit import serve as rules
from framework.conformance.kit.finding import Budget, Check, Violation
from framework.conformance.kit.model_run import same_tokens
from framework.conformance.kit.search import search
from framework.conformance.kit.serve import serve
from framework.conformance.kit.traces import Trace, simpler_traces, traces
from framework.conformance.kit.views import VIEW, guard
from framework.conformance.kit.watched_policy import VICTIMS, WatchedPolicy, watch
from framework.interfaces.eviction import EvictionPolicy
from framework.records.analysis.block_cache import replay_chains
from framework.registry import SCHEDULERS

BALANCE = "no block is forgotten: all that can be evicted are, in the end"
SAME_VICTIMS = "the same trace gives the same victims"

_NUM_GUARDED = 15

Chains = tuple[tuple[int, ...], ...]


def checks(choice: Mapping[Any, Any], build: Callable[[], EvictionPolicy], budget: Budget) -> list[Check]:
    """The checks of the policy that `build` makes anew each time."""
    return [
        Check(VICTIMS, lambda: _in_engine(build, budget)),
        Check(BALANCE, lambda: _over_chains(build, budget)),
        Check(SAME_VICTIMS, lambda: _same_victims(build, budget)),
        Check(VIEW, lambda: _within_view(build, budget)),
        Check("a decision is cheap", lambda: decision_cost(build, budget)),
        Check("same tokens as lru on a model", lambda: same_tokens("eviction", choice)),
    ]


def _in_engine(build: Callable[[], EvictionPolicy], budget: Budget) -> str:
    """Preemptions, shared prefixes and tiny caches; the engine's own checks are on as well."""

    def attempt(example: tuple[Trace, int, int]) -> None:
        trace, overlap, seed = example
        serve(trace, SCHEDULERS.get("random")(seed=seed), watch(build()), overlap=overlap)

    examples = st.tuples(traces(), st.sampled_from([0, 1]), st.integers(0, 99))
    result = search(
        examples, attempt, budget, lambda example: ((one, *example[1:]) for one in simpler_traces(example[0]))
    )
    if result.violation is not None:
        raise result.violation
    return f"{result.num_examples} random traces under a scheduler that preempts at random, engine.overlap 0 and 1"


def _within_view(build: Callable[[], EvictionPolicy], budget: Budget) -> str:
    def attempt(trace: Trace) -> None:
        serve(trace, SCHEDULERS.get("chunked_prefill")(), guard(build(), EvictionPolicy), overlap=0)

    fewer = replace(budget, num_examples=min(budget.num_examples, _NUM_GUARDED))
    result = search(traces(), attempt, fewer, simpler_traces)
    if result.violation is not None and result.violation.rule == VIEW:  # another check reports others
        raise result.violation
    return f"{result.num_examples} random traces, in which it gets its interface and nothing behind it"


def _over_chains(build: Callable[[], EvictionPolicy], budget: Budget) -> str:
    def attempt(example: tuple[Chains, int]) -> None:
        _replay(build, example)

    result = search(_chains(), attempt, budget)
    if result.violation is not None:
        raise result.violation
    return f"{result.num_examples} random streams of block chains"


def _same_victims(build: Callable[[], EvictionPolicy], budget: Budget) -> str:
    def attempt(example: tuple[Chains, int]) -> None:
        one, other = (_replay(build, example).victims for _ in range(2))
        if one != other:
            at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
            raise Violation(SAME_VICTIMS, f"decision {at} differs between two runs\n{_describe(example)}")

    result = search(_chains(), attempt, budget)
    if result.violation is not None:
        raise result.violation
    return f"{result.num_examples} random streams, each twice"


def _replay(build: Callable[[], EvictionPolicy], example: tuple[Chains, int]) -> WatchedPolicy:
    """Ask for the chains, and then evict everything that is left."""
    chains, num_blocks = example
    policy = watch(build())
    try:
        replay_chains(policy, chains, num_blocks)
        while policy.evictable:
            policy.evict()
    except Violation as violation:
        raise Violation(violation.rule, f"{violation.message}\n{_describe(example)}") from violation
    except Exception as error:
        left = f"{type(error).__name__}: {error}, with {len(policy.evictable)} evictable blocks"
        raise Violation(BALANCE if policy.evictable else rules.RAISES, f"{left}\n{_describe(example)}") from error
    return policy


@st.composite
def _chains(draw: st.DrawFn) -> tuple[Chains, int]:
    """Chains that share prefixes, and the number of blocks to serve them with. Key n is block n of the first chain; a
    chain that leaves another one never comes back to it."""
    num_blocks = draw(st.integers(2, 12))
    known: list[tuple[int, ...]] = [()]
    asked: list[tuple[int, ...]] = []
    next_key = 0
    for pick, kept, fresh in draw(
        st.lists(st.tuples(st.integers(0, 99), st.integers(0, 12), st.integers(0, 5)), min_size=1, max_size=40)
    ):
        prefix = known[pick % len(known)][:kept]
        chain = (prefix + tuple(range(next_key, next_key + fresh)))[:num_blocks]
        next_key += fresh
        if chain:
            known.append(chain)
            asked.append(chain)
    return tuple(asked), num_blocks


def _describe(example: tuple[Chains, int]) -> str:
    chains, num_blocks = example
    lines = [f"a cache of {num_blocks} blocks; requests one after the other, each a chain of block contents:"]
    return "\n".join([*lines, *(f"request {number}: {list(chain)}" for number, chain in enumerate(chains))])
