"""A request's category reaches schedulers, the blocks that it publishes, and its record."""

from __future__ import annotations

from typing import Any

from framework.interfaces.eviction import CachedBlock
from framework.interfaces.scheduler import RequestView
from framework.interfaces.workload import TimedRequest
from framework.records.metrics.recorder import Recorder
from framework.workloads.drive import drive
from plugins.eviction.lru import LRU
from plugins.schedulers.chunked_prefill import ChunkedPrefill
from tests.engine.shadow import make_engine, params


class Notes(LRU):
    def __init__(self) -> None:
        super().__init__()
        self.published: list[str] = []

    def on_insert(self, block: CachedBlock) -> None:
        self.published.append(block.category)


class NotesArrivals(ChunkedPrefill):
    def __init__(self) -> None:
        super().__init__()
        self.arrived: list[str] = []

    def on_arrival(self, request: RequestView) -> None:
        self.arrived.append(request.category)


def test_from_workload_to_block_and_record() -> None:
    """Blocks that two requests share keep the first one's category. A block that is taken again gets another."""
    policy, scheduler, recorder = Notes(), NotesArrivals(), Recorder(keep_outputs=False)
    engine = make_engine(scheduler, policy, num_blocks=4, block_size=4)
    common: Any = {"params": params(1)}
    drive(
        engine,
        [
            TimedRequest(prompt_token_ids=[1] * 9, category="chat", **common),
            TimedRequest(prompt_token_ids=[1] * 9, category="api", arrival_s=1.0, **common),
            TimedRequest(prompt_token_ids=[2] * 13, category="api", arrival_s=2.0, **common),
            TimedRequest(prompt_token_ids=[3] * 5, arrival_s=3.0, **common),
        ],
        [recorder],
    )
    assert policy.published == ["chat", "chat", "api", "api", "api", ""]
    assert scheduler.arrived == ["chat", "api", "api", ""]
    assert [request.category for request in recorder.requests] == scheduler.arrived
