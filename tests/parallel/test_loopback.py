"""The ranks of one host meet where no other host can reach them."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from framework.app.llm import LLM
from tests.parallel.test_failures import children

LISTENING = "0A"


def addresses(processes: Iterable[int]) -> list[str]:
    """Hexadecimal addresses at which they listen, of IPv4 and IPv6."""
    inodes = set()
    for process in processes:
        for entry in Path(f"/proc/{process}/fd").iterdir():
            try:
                inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(entry)))
            except OSError:  # closed meanwhile
                continue
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                found.append(fields[1].partition(":")[0])
    return found


def test_nothing_listens_beyond_the_loopback_interface() -> None:
    before = addresses([os.getpid()])
    with LLM("tiny", tp=2, device="cpu", max_model_len=64, num_blocks=8, max_num_seqs=2):
        found = addresses([os.getpid(), *children()])
        for address in before:
            found.remove(address)
        assert found
        assert {address[-8:] for address in found} == {"0100007F"}  # 127.0.0.1, in IPv6 too
