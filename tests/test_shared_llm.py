"""One `LLM` for several threads, beside a fork, and after its end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from framework.app.llm import LLM
from framework.interfaces.sampling_params import SamplingParams

PROMPTS = [list(range(number, number + 20)) for number in range(30)]


def params(number: int) -> SamplingParams:
    return SamplingParams(temperature=number % 2, seed=number, max_tokens=4 + number % 9, ignore_eos=True)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("tiny", max_num_seqs=4, max_model_len=64, num_blocks=9, threads=1) as llm:
        yield llm


def test_several_threads_get_the_tokens_of_one(llm: LLM) -> None:
    want = [llm.generate(prompt, params(number))[0].outputs[0].token_ids for number, prompt in enumerate(PROMPTS)]

    def generate(number: int) -> list[int]:
        return llm.generate(PROMPTS[number], params(number))[0].outputs[0].token_ids

    def stream(number: int) -> list[int]:
        return [token for chunk in llm.stream(PROMPTS[number], params(number)) for token in chunk.token_ids]

    def leave_early(number: int) -> list[int]:
        stream = llm.stream(PROMPTS[number], params(number))
        next(stream)
        del stream
        return want[number]

    calls: list[Callable[[int], list[int]]] = [generate, stream, leave_early]
    with ThreadPoolExecutor(3) as pool:
        got = list(pool.map(lambda number: calls[number % 3](number), range(len(PROMPTS))))
    assert got == want
    assert not llm._shared._news
    while llm.engine.has_work:
        llm.engine.step()
    assert llm.engine.cache.num_free == len(llm.engine.cache.blocks)


def test_a_thread_does_not_wait_for_the_whole_call_of_another(llm: LLM) -> None:
    long = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    ends: dict[str, float] = {}

    def run(name: str, prompts: list[list[int]], wanted: SamplingParams) -> None:
        llm.generate(prompts, wanted)
        ends[name] = time.monotonic()

    first = threading.Thread(target=run, args=("long", PROMPTS[:3] * 5, long))
    first.start()
    while not llm._shared._news:
        time.sleep(1e-3)
    run("short", PROMPTS[3:4], SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))
    first.join()
    assert ends["short"] < ends["long"]


def in_child(call: Callable[[], object]) -> str:
    """The error that `call` raises, within five seconds, in a process that is forked from this one."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(5)  # ends a child that hangs
        try:
            call()
            message = "nothing"
        except BaseException as error:  # noqa: BLE001
            message = f"{type(error).__name__}: {error}"
        os.write(write, message.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as lines:
        message = lines.read()
    os.waitpid(child, 0)
    return message


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_told_at_once(llm: LLM) -> None:
    stream = llm.stream(PROMPTS[0], params(0))
    got = next(stream).token_ids
    for call in (
        lambda: llm.generate(PROMPTS[0]),
        lambda: next(stream),
        lambda: llm.generate([]) or llm.chat([{"role": "user", "content": "hi"}]),
    ):
        message = in_child(call)
        assert f"this LLM was opened by process {os.getpid()} and cannot be used in process" in message
        assert "Build one here" in message
    assert in_child(llm.close) == "nothing"  # nothing of it is in the child
    got += [token for chunk in stream for token in chunk.token_ids]
    assert got == llm.generate(PROMPTS[0], params(0))[0].outputs[0].token_ids


def test_a_forked_process_is_told_although_a_step_runs(llm: LLM) -> None:
    with llm._shared._turn:  # as another thread would hold it
        assert "Build one here" in in_child(lambda: llm.generate(PROMPTS[0]))


def test_a_stream_that_is_open_when_the_llm_is_closed_says_so() -> None:
    llm = LLM("tiny", max_model_len=64, threads=1)
    stream = llm.stream([1, 2, 3], params(0))
    next(stream)
    llm.close()
    with pytest.raises(ValueError, match="this LLM was closed"):
        next(stream)
    llm.close()
