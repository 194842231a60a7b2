"""A rank that hangs in any phase of its life ends the engine, and the message names the rank and the phase."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from framework.app.llm import LLM
from framework.execution.parallel.control import Channel
from framework.execution.parallel.heartbeat import Heartbeat
from framework.execution.parallel.watch import EXIT_LOST, Peer, Watch
from framework.interfaces.errors import RankError
from framework.models.layers.group import Phase, Progress

HANGING = str(Path(__file__).with_name("hanging.py"))
STARTING = [phase for phase in Phase if phase is not Phase.END_BEFORE]
LIMIT_S = 60.0
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # a heartbeat's end


def shorten_in(monkeypatch: pytest.MonkeyPatch, wanted: Phase) -> None:
    """Once every rank is in `wanted` or past it, the start's limit is short; until then it is what imports may take."""
    judge = Watch._judge

    def shortened(self: Watch, now_s: float) -> None:
        if min(peer.phase for peer in [self._own, *self.peers]) >= wanted and self._progress.phase >= Phase.JOIN:
            self.limit_s = 0.6
        judge(self, now_s)

    monkeypatch.setattr(Watch, "_judge", shortened)


def start(**options: object) -> None:
    with LLM("tiny", tp=2, device="cpu", max_model_len=128, num_blocks=16, max_num_seqs=2, **options):
        pass


def threads_of_a_start() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "servelab-start"]


@pytest.mark.parametrize("phase", STARTING)
def test_a_worker_that_hangs_in_its_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, phase: Phase) -> None:
    shorten_in(monkeypatch, phase)
    if phase is Phase.START:  # before the worker's own first line
        (tmp_path / "sitecustomize.py").write_text("import time\nwhile True: time.sleep(0.01)\n")
        monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SERVELAB_TEST_HANG", phase.name)
    label = "warming up" if phase is Phase.RUN else phase.label
    started_s = time.monotonic()
    with pytest.raises(RankError, match=rf"rank 1 \(process .*\) stalled: no progress while {label} for") as caught:
        start(plugins=[HANGING])
    assert time.monotonic() - started_s < LIMIT_S
    until_s = time.monotonic() + 5
    while threads_of_a_start():
        assert time.monotonic() < until_s, "rank 0 goes on waiting for a rank that is gone"
        time.sleep(0.05)
    if phase > Phase.IMPORT:  # which takes longer than the limit as it is
        assert "_hang_here" in "".join(caught.value.__notes__)


def test_a_worker_that_hangs_in_its_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVELAB_TEST_HANG", "END_BEFORE")
    with LLM("tiny", tp=2, device="cpu", max_model_len=128, num_blocks=16, max_num_seqs=2, plugins=[HANGING]):
        closing_s = time.monotonic()
    assert time.monotonic() - closing_s < 8


@pytest.fixture
def freed() -> Iterator[threading.Event]:
    """Set at the end, so that no thread of a test stays behind."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("phase", [Phase.JOIN, Phase.LOAD])
def test_rank_0_that_hangs_in_its_start(monkeypatch: pytest.MonkeyPatch, freed: threading.Event, phase: Phase) -> None:
    shorten_in(monkeypatch, phase)
    enter = Progress.enter

    def hang(self: Progress, entered: Phase) -> None:
        enter(self, entered)
        if entered is phase:
            freed.wait()

    monkeypatch.setattr(Progress, "enter", hang)
    with pytest.raises(RankError, match=rf"rank 0 \(this process\).* stalled: no progress while {phase.label} for"):
        start()


def test_rank_0_that_is_stuck_for_good_ends_its_process() -> None:
    """On its way into a step, where nothing in Python can free it."""
    script = """
import time
from framework.app.llm import LLM
from framework.execution.parallel.plan_codec import PlanEncoder
from framework.interfaces.sampling_params import SamplingParams

llm = LLM("tiny", tp=2, device="cpu", max_model_len=128, num_blocks=16, max_num_seqs=2, heartbeat_s=0.3)
PlanEncoder.encode = lambda self, batch: time.sleep(1000)
llm.generate([[1, 2, 3]], SamplingParams(max_tokens=3))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == EXIT_LOST
    assert re.search("no rank made progress .* while running steps; rank 0 can't be freed and ends", done.stderr)
    assert "time.sleep(1000)" in done.stderr or "<lambda>" in done.stderr


class Fleet:
    """Rank 0's watch over workers that are threads here, each with a heartbeat of its own."""

    def __init__(self, size: int, limit_s: float) -> None:
        self.progress = Progress(phase=Phase.JOIN)
        self.hearts: list[Heartbeat] = []
        peers = []
        for rank in range(1, size):
            mine, theirs = socket.socketpair()
            self.hearts.append(Heartbeat(Channel(theirs), when_gone=sys.exit))
            peers.append(Peer(rank, Channel(mine), lambda: ("is gone", ""), mine.close))
        self.watch = Watch(peers, self.progress, 0.4, limit_s)

    def failure(self, within_s: float) -> str:
        until_s = time.monotonic() + within_s
        while self.watch.failure is None and time.monotonic() < until_s:
            time.sleep(0.02)
        return str(self.watch.failure or "")

    def enter(self, phase: Phase, *ranks: int) -> None:
        for rank in ranks:
            (self.hearts[rank - 1].progress if rank else self.progress).enter(phase)


def test_who_waits_is_not_at_fault_however_long() -> None:
    fleet = Fleet(3, limit_s=1.0)
    fleet.enter(Phase.SIZE, 0, 2)
    for phase in (Phase.IMPORT, Phase.CHOOSE, Phase.JOIN, Phase.LOAD):
        fleet.enter(phase, 1)
        assert fleet.failure(0.5) == ""
    assert re.match(
        r"rank 1 \(process \d+ on .*\) stalled: no progress while loading weights for 1 s", fleet.failure(3)
    )


def test_the_clock_of_a_phase_starts_when_the_last_rank_gets_there() -> None:
    fleet = Fleet(2, limit_s=0.9)
    fleet.enter(Phase.IMPORT, 1)
    assert fleet.failure(0.6) == ""
    fleet.enter(Phase.JOIN, 1)
    assert fleet.failure(0.6) == ""
    assert "rank 0 (this process) and rank 1" in fleet.failure(3)
    assert "while meeting the other ranks" in fleet.failure(0)


def test_an_engine_that_idles_is_left_alone() -> None:
    fleet = Fleet(2, limit_s=0.3)
    fleet.enter(Phase.RUN, 0, 1)
    fleet.hearts[0].ready()
    assert fleet.failure(1.0) == ""
    fleet.watch.working = True
    assert "while warming up for 0.3 s" in fleet.failure(3)


def test_a_watch_that_goes_wrong_fails_the_engine() -> None:
    fleet = Fleet(2, limit_s=9)
    fleet.hearts[0]._send(beat=0, phase=99)
    assert "the watch over the ranks ended: ValueError" in fleet.failure(3)
