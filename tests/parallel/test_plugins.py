"""Every rank holds the same plugins, or the engine does not start and says which differ."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from framework.app.llm import LLM
from framework.interfaces import Scheduler
from framework.interfaces.errors import RankError
from framework.registry import SAMPLERS, SCHEDULERS, discovery, registry
from plugins.samplers.greedy import Greedy


def define(module: str, base: type, name: str) -> type:
    """A class as a notebook or a script would define it: in a module that no other process can import."""
    return types.new_class(name, (base,), exec_body=lambda body: body.update(__module__=module))


def test_a_plugin_that_a_worker_cannot_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_up", types.ModuleType("made_up"))
    SAMPLERS.register("only_here")(define("made_up", Greedy, "OnlyHere"))
    with pytest.raises(RankError, match=r"rank 1 .*holds other plugins than rank 0: sampler 'only_here' is missing"):
        LLM("tiny", tp=2, sampler="only_here")


def test_what_no_worker_builds_may_be_defined_anywhere() -> None:
    before = registry.fingerprint()
    SCHEDULERS.register("notebook")(define("__main__", Scheduler, "Notebook"))
    assert registry.fingerprint() == before
    SAMPLERS.register("notebook")(define("__main__", Greedy, "NotebookGreedy"))
    assert registry.fingerprint() != before


def test_differences_name_kind_plugin_and_how() -> None:
    theirs = registry.plugin_hashes()
    assert registry.differences(theirs) == []
    theirs["sampler"]["greedy"] = "other"
    del theirs["scheduler"]["prefill_first"]
    theirs["graph"]["mine"] = "new"
    assert registry.differences(theirs) == [
        "scheduler 'prefill_first' is here only",
        "sampler 'greedy' has other code",
        "graph 'mine' is missing",
    ]


def test_files_are_named_by_their_full_path_to_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from framework.registry import SAMPLERS\nfrom plugins.samplers.greedy import Greedy\n\n\n"
        "@SAMPLERS.register('from_file')\nclass FromFile(Greedy):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    discovery.discover(["mine.py"])
    assert str(tmp_path / "mine.py") in discovery.extra()
