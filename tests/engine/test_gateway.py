"""What a router may know and do: numbers of a gateway, no engine behind them; it may hold and refuse requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from framework.config.compose import compose
from framework.engine.fleet import Fleet
from framework.interfaces.errors import PluginError, StuckError
from framework.interfaces.request import RequestSpec
from framework.interfaces.router import Arrival, Hold, Refuse, ReplicaView, Router
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest
from tests.engine.test_fleet import engine, run, simulate, timed
from tests.engine.test_hidden_lengths import paths_to

Choice = int | Hold | Refuse


class Asked(Router):
    """Does what `choose` says, and writes down all that it is told."""

    asks_cached_blocks = True

    def __init__(self, choose: Callable[[Arrival, Sequence[ReplicaView]], Choice]) -> None:
        self.choose = choose
        self.views: list[tuple[int, Sequence[ReplicaView]]] = []
        self.told: list[tuple[str, int, int]] = []

    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> Choice:
        self.views.append((request.id, replicas))
        return self.choose(request, replicas)

    def on_step(self, replica: ReplicaView) -> None:
        self.told.append(("step", replica.index, replica.num_running))

    def on_finish(self, request: Arrival, index: int, num_output: int) -> None:
        self.told.append(("finish", request.id, num_output))


def fleet(choose: Callable[[Arrival, Sequence[ReplicaView]], Choice], **more: Any) -> tuple[Fleet, Asked]:
    router = Asked(choose)
    return Fleet([engine(0), engine(0)], router, **more), router


def test_nothing_that_a_router_is_given_leads_to_an_engine() -> None:
    found: list[str] = []

    class Digs(Router):
        def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
            for root in (request, path, replicas):
                found.extend(paths_to(root, 77))
            with pytest.raises(AttributeError):
                replicas[0].engine  # type: ignore[attr-defined]  # noqa: B018
            with pytest.raises(AttributeError):
                replicas[0].num_requests = 5  # type: ignore[misc]
            return request.id % 2

        def on_step(self, replica: ReplicaView) -> None:
            found.extend(paths_to(replica, 77))

        def on_finish(self, request: Arrival, index: int, num_output: int) -> None:
            found.extend(paths_to(request, 77))

    secret = SamplingParams(max_tokens=100, ignore_eos=True)
    requests = [
        TimedRequest(arrival_s=40.0 * i, prompt_token_ids=[1, 2], params=secret, output_tokens=77) for i in range(4)
    ]
    recorder = run(Fleet([engine(), engine()], Digs()), requests)
    assert [record.num_output_tokens for record in recorder.requests] == [77] * 4
    assert not found


def test_reports_are_of_the_last_step_that_has_ended() -> None:
    """A step takes 0.55 s and 0.01 s per token; with three slots the fourth and fifth request wait."""
    target, router = fleet(lambda request, replicas: 0, hardware="h200")
    run(target, [*(timed(0.0, 4, 4, first=50 * i) for i in range(5)), timed(0.3, 4, 4), timed(0.8, 4, 4)])
    at_start, before_its_end, after_it = (router.views[place][1][0] for place in (4, 5, 6))
    assert (at_start.num_requests, at_start.num_running, at_start.num_waiting) == (4, 0, 0)
    assert (before_its_end.num_requests, before_its_end.num_running, before_its_end.num_used_blocks) == (5, 0, 0)
    assert (after_it.num_requests, after_it.num_running, after_it.num_waiting) == (6, 3, 3)
    assert after_it.num_used_blocks == 3
    assert (after_it.hardware, after_it.role) == ("h200", "any")
    idle = router.views[-1][1][1]
    assert (idle.num_requests, idle.num_running, idle.num_used_blocks, idle.num_cached_blocks) == (0, 0, 0, 0)


@pytest.mark.parametrize(("staleness_s", "seen"), [(0.0, [0, 4, 4, 4]), (30.0, [0, 0, 4, 4]), (1000.0, [0, 0, 0, 0])])
def test_the_cached_depth_of_a_path_is_as_old_as_the_report(staleness_s: float, seen: list[int]) -> None:
    target, router = fleet(lambda request, replicas: 1, staleness_s=staleness_s)
    run(target, [timed(time_s, 17, 2) for time_s in (0.0, 20.0, 40.0, 60.0)])
    assert [views[1].num_cached_blocks for _, views in router.views] == seen
    assert [views[0].num_cached_blocks for _, views in router.views] == [0] * 4


def test_a_stale_report_leaves_the_own_books_exact() -> None:
    target, router = fleet(lambda request, replicas: 0, staleness_s=1000.0)
    run(target, [timed(0.0, 4, 9), timed(1.0, 4, 9), timed(2.0, 4, 9), timed(90.0, 4, 2)])
    views = [views[0] for _, views in router.views]
    assert [view.num_requests for view in views] == [0, 1, 2, 0]
    assert [view.num_running for view in views] == [0, 0, 0, 0]
    fresh, router = fleet(lambda request, replicas: 0)
    run(fresh, [timed(0.0, 4, 9), timed(1.0, 4, 9), timed(2.0, 4, 9), timed(90.0, 4, 2)])
    assert [views[0].num_running for _, views in router.views] == [0, 1, 2, 0]


def test_a_held_request_waits_until_the_router_sends_it() -> None:
    """One at a time: the others wait at the gateway, and their time counts from their arrival."""

    def one_each(request: Arrival, replicas: Sequence[ReplicaView]) -> Choice:
        free = [replica.index for replica in replicas if not replica.num_requests]
        return free[0] if free else Hold("all are busy")

    target, router = fleet(one_each)
    recorder = run(target, [timed(0.1 * i, 4, 3, first=50 * i) for i in range(6)])
    records = {record.request_id: record for record in recorder.requests}
    assert {record.finish_reason for record in records.values()} == {"length"}
    assert [records[i].arrival_s for i in range(6)] == pytest.approx([0.1 * i for i in range(6)])
    for index in (0, 1):
        mine = sorted((r.scheduled_s or 0.0, r.finish_s) for r in records.values() if r.replica == index)
        assert len(mine) == 3
        assert all(start >= end for (_, end), (start, _) in pairwise(mine))
    assert target.effective() == {"requests_of_replicas": [3, 3], "held_by_router": {"all are busy": 4}}
    first_told = [place for kind, place, _ in router.told if kind == "finish"]
    assert first_told[:4] == sorted(first_told[:4], key=lambda i: records[i].finish_s)


def test_a_refused_request_ends_as_rejected_with_the_reason() -> None:
    target, _ = fleet(lambda request, replicas: Refuse("too long") if request.num_prompt > 8 else 0)
    recorder = run(target, [timed(0.0, 4, 2), timed(0.0, 9, 2), timed(1.0, 20, 2), timed(1.0, 5, 2)])
    refused = [record for record in recorder.requests if record.error]
    assert [(record.finish_reason, record.num_prompt_tokens) for record in refused] == [
        ("rejected", 9),
        ("rejected", 20),
    ]
    assert {record.error for record in refused} == {"router Asked refused it: too long"}
    assert target.effective() == {"requests_of_replicas": [2, 0], "refused_by_router": {"too long": 2}}


def test_what_was_held_may_be_refused_later_and_its_follow_ups_with_it() -> None:
    asked: list[int] = []

    def choose(request: Arrival, replicas: Sequence[ReplicaView]) -> Choice:
        asked.append(request.id)
        if request.id == 1:
            return Hold("later") if asked.count(1) < 3 else Refuse("waited too long")
        return 0

    target, _ = fleet(choose)
    recorder = run(target, [timed(0.0, 4, 9), timed(0.0, 4, 2), timed(0.0, 3, 2, after=1, delay_s=0.5)])
    errors = {record.error for record in recorder.requests if record.finish_reason == "rejected"}
    assert errors == {"router Asked refused it: waited too long", "the request that it follows was refused"}
    assert len(recorder.requests) == 3
    assert target.effective()["held_by_router"] == {"later": 1}
    assert not target.has_work


def test_holding_while_nothing_runs_is_an_error_that_names_the_router() -> None:
    target, _ = fleet(lambda request, replicas: Hold("why not"))
    with pytest.raises(StuckError, match=r"router Asked holds 1 requests while every replica is idle .*'why not'"):
        run(target, [timed(0.0, 4, 2)])


def test_a_held_request_can_be_aborted() -> None:
    target, _ = fleet(lambda request, replicas: Hold("x") if request.id else 0)
    for _ in range(2):
        target.add_request(RequestSpec(prompt_token_ids=[1, 2], params=SamplingParams(max_tokens=3), arrival_s=0.0))
    output = target.abort(1)
    assert output is not None
    assert (output.finish_reason, output.token_ids) == ("abort", [])
    assert target.abort(1) is None


def test_a_router_is_told_of_steps_and_ends_before_it_decides() -> None:
    target, router = fleet(lambda request, replicas: request.id % 2)
    run(target, [timed(0.0, 4, 3), timed(0.0, 4, 1), timed(50.0, 4, 1)])
    assert router.told == [("step", 0, 0), ("step", 1, 0), ("finish", 1, 1), ("finish", 0, 3)]


def test_the_record_counts_what_a_router_held(tmp_path: Any) -> None:
    plugin = tmp_path / "careful.py"
    plugin.write_text(
        "from framework.interfaces.router import Hold, Refuse, Router\n"
        "from framework.registry import ROUTERS\n"
        "@ROUTERS.register('careful')\n"
        "class Careful(Router):\n"
        "    def route(self, request, path, replicas):\n"
        "        if request.id == 5: return Refuse('the sixth')\n"
        "        least = min(replicas, key=lambda one: one.num_requests)\n"
        "        return least.index if least.num_requests < 1 else Hold('busy')\n"
    )
    record = simulate(tmp_path / "cell", "executor.replicas=2", "router=careful", f"plugins=[{plugin}]")
    assert record.status == "completed"
    assert record.effective["refused_by_router"] == {"the sixth": 1}
    assert record.effective["held_by_router"]["busy"] > 0
    assert "refused it: the sixth" in record.reason


def test_a_staleness_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"executor\.router_staleness_s=-1\.0: must be at least 0"):
        compose(["model=tiny", "workload=synthetic", "executor=simulated", "executor.router_staleness_s=-1"])


def test_an_answer_that_is_none_of_these_is_named() -> None:
    target, _ = fleet(lambda request, replicas: "hold")  # type: ignore[arg-type, return-value]
    with pytest.raises(PluginError, match=r"to replica 'hold'; there are 0 to 1, and Hold\(reason\)"):
        run(target, [timed(0.0, 4, 2)])
