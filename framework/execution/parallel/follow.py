"""What a worker does: build the rank that rank 0 asks for, then run every plan that comes."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from framework.config.settings import Settings
from framework.execution.parallel.config_codec import decode_config, encode_config
from framework.execution.parallel.control import Message
from framework.execution.parallel.heartbeat import Heartbeat
from framework.execution.parallel.plan_codec import PlanDecoder
from framework.registry import discovery, registry

_MAX_IN_FLIGHT = 2


def start_message(cfg: Settings, *, name: str, rank: int, size: int, threads: int) -> Message:
    """All that a worker needs: the resolved configuration, where plugins come from, and the name of this engine."""
    return {
        "rank": rank,
        "size": size,
        "threads": threads,
        "name": name,
        "config": encode_config(dataclasses.asdict(cfg)),
        "plugins": discovery.extra(),
        "modules": registry.modules(),
        "fingerprint": registry.fingerprint(),
        "plugin_hashes": registry.plugin_hashes(),
    }


def follow(
    start: Message, heartbeat: Heartbeat, receive: Callable[[], bytes], open_store: Callable[[], Any], *, local: bool
) -> None:
    """Build, report, and run plans until `receive` returns an empty one. An error is reported and never returns.

    Args:
        open_store: gives the store where the ranks meet.
        local: all of them are on this host.
    """
    try:
        rank = int(start["rank"])
        progress = heartbeat.begin()
        _same_plugins(start)
        cfg = Settings.of(decode_config(start["config"]))

        import torch

        from framework.engine.blame import blaming
        from framework.execution.parallel.make_group import join
        from framework.execution.rank.choices import choose
        from framework.execution.rank.rank import build_rank, call_here
        from framework.models.layers.group import Phase

        torch.set_num_threads(start["threads"])
        if torch.cuda.is_available():
            local_rank = int(os.environ.get("LOCAL_RANK") or rank)
            torch.cuda.set_device(local_rank % torch.cuda.device_count())  # shared only with executor.allreduce=gloo
        progress.enter(Phase.CHOOSE)
        choices = choose(cfg)
        joined = join(choices, open_store(), start["name"], rank, progress, local=local)
        built = build_rank(cfg, choices, joined.group, call_here, with_tokenizer=False)
        progress.enter(Phase.RUN)
        heartbeat.ready(device=str(choices.device), threads=built.threads, allreduce=joined.allreduce)
        decoder = PlanDecoder()
        in_flight: deque[Any] = deque()
        with blaming():
            while message := receive():
                progress.count += 1
                in_flight.append(built.runner.launch(decoder.decode(message)))
                if len(in_flight) == _MAX_IN_FLIGHT:
                    in_flight.popleft().wait()
            while in_flight:
                in_flight.popleft().wait()
        progress.enter(Phase.END_BEFORE)
        built.runner.release_graphs()
        joined.close()
        joined.wait_closed()
    except Exception as error:  # noqa: BLE001 (whatever it is, rank 0 has to know)
        heartbeat.fail(error)


def _same_plugins(start: Message) -> None:
    discovery.discover(start["plugins"])
    for module in start["modules"]:
        try:
            importlib.import_module(module)
        except ImportError:  # what it should have registered is missed below, by name
            continue
    if start["fingerprint"] == registry.fingerprint():
        return
    differences = registry.differences(start["plugin_hashes"])
    raise ValueError(
        f"rank {start['rank']} holds other plugins than rank 0: {'; '.join(differences)}. Every rank needs the same "
        f"code: name files and modules in plugins=[...], and keep plugins out of notebooks and of the main script"
    )
