"""The registered routers, each against what its documentation says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from framework.interfaces.router import Arrival, Router
from framework.interfaces.sampling_params import SamplingParams
from framework.registry import ROUTERS
from framework.registry.discovery import discover

discover()


@dataclass
class View:
    index: int
    num_requests: int = 0
    num_prompt_tokens: int = 0
    num_blocks: int = 100
    num_cached_blocks: int = 0
    num_used_blocks: int = 0


def views(*loads: int) -> list[View]:
    return [View(index, load, 10 * load) for index, load in enumerate(loads)]


def build(name: str, **parameters: Any) -> Router:
    router = ROUTERS.build({"name": name, **parameters})
    assert isinstance(router, Router)
    return router


def route(router: Router, replicas: Sequence[View], path: Sequence[int] = ()) -> int:
    request = Arrival(id=0, arrival_s=0.0, num_prompt=4 * len(path) + 1, params=SamplingParams(max_tokens=9))
    return router.route(request, path, replicas)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("name", ROUTERS.names())
def test_every_router_names_a_replica_and_does_so_again(name: str) -> None:
    loads = [(3, 1, 2), (0, 0, 0), (9, 9, 0), (200, 0, 5)]
    paths = [[], [1, 2], [1, 3], [1, 2, 4], list(range(300))]
    chosen = []
    for _ in range(2):
        router = build(name)
        chosen.append([route(router, views(*load), path) for load in loads for path in paths])
    assert chosen[0] == chosen[1]
    assert set(chosen[0]) <= {0, 1, 2}


def test_round_robin_takes_turns_whatever_the_load() -> None:
    router = build("round_robin")
    assert [route(router, views(9, 0, 0)) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_least_loaded_by_requests_or_tokens_and_in_turn_when_idle() -> None:
    replicas = [View(0, 2, 50), View(1, 3, 10), View(2, 2, 60)]
    assert [route(build("least_loaded"), replicas)] == [0]
    assert [route(build("least_loaded", by="prompt_tokens"), replicas)] == [1]
    router = build("least_loaded")
    assert [route(router, views(0, 0, 0)) for _ in range(5)] == [0, 1, 2, 0, 1]
    assert [route(router, views(0, 1, 1)) for _ in range(3)] == [0, 0, 0]


def test_prefix_affinity_follows_the_longest_match() -> None:
    router = build("prefix_affinity", min_match=0.5)
    assert route(router, views(1, 0, 1), [1, 2, 3, 4]) == 1
    assert route(router, views(1, 1, 0), [1, 2, 8, 9]) == 2  # half of it: not more than min_match, so the least loaded
    assert route(router, views(0, 5, 5), [1, 2, 3, 4, 5]) == 1
    assert route(router, views(0, 5, 5), [1, 2, 8, 9, 7]) == 2
    assert route(router, views(0, 5, 4), [1, 2]) == 2  # both have all of it


def test_prefix_affinity_gives_way_to_load() -> None:
    for loads, expected in (((0, 8), 1), ((0, 9), 0), ((10, 19), 1), ((18, 29), 1), ((18, 28), 1), ((8, 17), 0)):
        router = build("prefix_affinity", balance_abs=8, balance_rel=2.0)
        assert route(router, views(1, 0), [1, 2, 3]) == 1
        assert route(router, views(*loads), [1, 2, 3]) == expected
        assert route(router, views(1, 1), [1, 2, 3]) == 0 if expected == 0 else 1  # where it went last, it is known too


def test_prefix_affinity_forgets_what_no_longer_fits_from_its_end() -> None:
    router = build("prefix_affinity", min_match=0.0)
    small = [View(0, 1, 0, num_blocks=4), View(1, 0, 0, num_blocks=4)]
    assert route(router, small, [1, 2, 3]) == 1
    assert route(router, small, [7, 8]) == 1  # block 3 had to go
    busy = [View(0, 0, 0, num_blocks=4), View(1, 5, 0, num_blocks=4)]
    strict = build("prefix_affinity", min_match=0.9)
    assert route(strict, small, [1, 2, 3]) == 1
    assert route(strict, small, [7, 8]) == 1
    assert route(strict, busy, [1, 2, 3]) == 0  # two of three are not 90 %
    assert route(router, busy, [1, 2]) == 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"min_match": 1.5}, "min_match=1.5"), ({"balance_abs": -1}, "balance_abs=-1"), ({"balance_rel": 0.5}, "rel=0.5")],
)
def test_prefix_affinity_refuses(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("prefix_affinity", **parameters)
