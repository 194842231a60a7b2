"""Makes a process group from a store. Nothing else in the process knows of the group."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from datetime import timedelta
from typing import Any

import torch


def connect(
    store: Any, rank: int, size: int, device: torch.device, limit_s: float, *, local: bool, backend: str
) -> Any:
    """Meet the other ranks at `store` and return the process group. Waits for all of them.

    It is not registered with `torch.distributed`, so several engines of one process do not see each other.

    Args:
        limit_s: for meeting, and for any one collective.
        local: all ranks are on this host: gloo then talks through the loopback interface.
        backend: nccl or gloo.
    """
    from torch.distributed import PrefixStore, ProcessGroup

    store = PrefixStore(backend, store)
    limit = timedelta(seconds=limit_s)
    group = ProcessGroup(store, rank, size)
    if backend == "gloo":
        from torch.distributed import ProcessGroupGloo

        options: Any = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        at = {"interface": "lo"} if local else _reachable()
        options._devices = [ProcessGroupGloo.create_device(**at)]
        options._timeout = limit
        talk: Any = ProcessGroupGloo(store, rank, size, options)
        kind = ProcessGroup.BackendType.GLOO
    else:
        from torch.distributed import ProcessGroupNCCL

        options = ProcessGroupNCCL.Options()
        options._timeout = 2 * limit  # torch ends the process then; the watch over the ranks knows more, and earlier
        if local:
            os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        talk = ProcessGroupNCCL(store, rank, size, options)
        talk.eager_connect_single_device(device)
        kind = ProcessGroup.BackendType.NCCL
    talk._set_sequence_number_for_group()
    group._set_default_backend(kind)
    group._register_backend(device, kind, talk)
    return group


def _reachable() -> dict[str, str]:
    """Where gloo listens for other hosts: the interface that the user named, else the address from which this host
    reaches torchrun's rank 0. Gloo's own choice, what the host's name resolves to, is often a loopback address."""
    if interface := os.environ.get("GLOO_SOCKET_IFNAME", "").partition(",")[0]:
        return {"interface": interface}
    family, kind, _, _, address = socket.getaddrinfo(os.environ["MASTER_ADDR"], 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # asks the routing table; nothing is sent
        return {"hostname": probe.getsockname()[0]}


def open_sockets() -> set[tuple[int, int]]:
    """The descriptor and inode of each socket of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                found.add((int(name), status.st_ino))
    return found


def shut_down(sockets: set[tuple[int, int]]) -> None:
    """Make every wait at these sockets fail, here and at the other end. gloo has no other way to give up."""
    for descriptor, _ in sockets & open_sockets():  # not those whose number went to another socket meanwhile
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
            duplicate.getpeername()  # fails for a listening one, which has to stay as it is
            duplicate.shutdown(socket.SHUT_RDWR)
