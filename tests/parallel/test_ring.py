"""Messages through shared memory: whole and in order, held back by a slow reader, ended by a death on either side."""

import os
import threading
import time

import pytest

from framework.execution.parallel.ring import RingReader, RingWriter
from framework.models.layers.group import PeerError


def make(num_readers: int, num_bytes: int = 4096) -> tuple[RingWriter, list[RingReader]]:
    writer = RingWriter(num_readers, lambda: None, num_bytes=num_bytes)
    readers = []
    for socket in writer.reader_sockets:
        readers.append(RingReader(os.dup(writer.fd), os.dup(socket.fileno())))
        socket.close()
    return writer, readers


def test_every_reader_gets_every_message_whole_and_in_order() -> None:
    """Sizes around the memory's, so that pieces wrap round and large messages come in several."""
    writer, readers = make(2)
    messages = [
        bytes([n % 251]) * size for n, size in enumerate([1, 4095, 4096, 4097, 30_000, 5, 2048, 1000, 3000] * 9)
    ]
    got: list[list[bytes]] = [[], []]

    def read(index: int) -> None:
        while message := readers[index].receive():
            got[index].append(message)

    threads = [threading.Thread(target=read, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for message in messages:
        writer.send(message)
    writer.send(b"")
    for thread in threads:
        thread.join(timeout=10)
    writer.close()
    assert got == [messages, messages]


@pytest.mark.parametrize(("size", "fits"), [(1500, 2), (1, 64)])
def test_a_slow_reader_holds_the_writer_back(size: int, fits: int) -> None:
    """By bytes, and by messages that have no bytes to speak of."""
    writer, (reader,) = make(1)
    sent = []

    def send() -> None:
        for n in range(100):
            writer.send(bytes([n]) * size)
            sent.append(n)

    thread = threading.Thread(target=send)
    thread.start()
    time.sleep(0.2)
    assert len(sent) == fits
    for n in range(100):
        assert reader.receive() == bytes([n]) * size
    thread.join(timeout=10)
    writer.close()
    assert len(sent) == 100


def test_a_writer_that_waits_asks_whether_to_go_on() -> None:
    def give_up() -> None:
        raise TimeoutError("enough")

    writer = RingWriter(1, give_up, num_bytes=64)
    writer.send(b"x" * 32)
    writer.send(b"x" * 32)
    with pytest.raises(TimeoutError, match="enough"):
        writer.send(b"x")
    writer.close()


def test_a_reader_that_is_gone() -> None:
    writer, (reader,) = make(1)
    reader._bell.close()
    with pytest.raises(PeerError, match="rank 1"):
        writer.send(b"x")
    writer.close()


def test_a_writer_that_is_gone_is_the_end() -> None:
    writer, (reader,) = make(1)
    writer.send(b"last")
    writer.close()
    assert reader.receive() in (b"last", b"")
    assert reader.receive() == b""


def test_the_memory_has_no_name() -> None:
    before = set(os.listdir("/dev/shm"))
    writer, _ = make(1)
    assert set(os.listdir("/dev/shm")) == before
    writer.close()
