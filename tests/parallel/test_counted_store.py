"""Two ranks meet although PyTorch numbers their exchanges differently."""

from datetime import timedelta

import pytest
from torch.distributed import HashStore, PrefixStore

from framework.execution.parallel.counted_store import CountedStore


def test_a_rank_that_counts_from_elsewhere_is_met() -> None:
    """Called from C++, as symmetric memory does."""
    shared = HashStore()
    old, new = CountedStore(shared), CountedStore(shared)
    at_old, at_new = (PrefixStore("engine", store) for store in (old, new))
    for exchange in range(3):
        at_old.set(f"Exchange/{5 + exchange}/0", b"\x00old")
        at_new.set(f"Exchange/{exchange}/1", b"new")
        at_old.wait([f"Exchange/{5 + exchange}/1"], timedelta(seconds=1))
        at_new.wait([f"Exchange/{exchange}/0"], timedelta(seconds=1))
        assert at_old.get(f"Exchange/{5 + exchange}/1") == b"new"
        assert at_new.get(f"Exchange/{exchange}/0") == b"\x00old"
    with pytest.raises(RuntimeError):
        at_new.wait(["Exchange/3/0"], timedelta(milliseconds=50))


def test_other_keys_are_left_alone() -> None:
    shared = HashStore()
    store = CountedStore(shared)
    store.set("unique_id", b"x")
    assert shared.get("unique_id") == store.get("unique_id") == b"x"
    assert store.check(["unique_id"])
    assert store.add("count", 2) == 2
