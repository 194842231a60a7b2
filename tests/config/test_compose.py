"""Composing a checked configuration from overrides: typed keys, presets, and a clear message for each mistake."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from framework.config.compose import CONF_DIR, compose, prepare
from framework.registry import discovery

PLUGIN = '''
from typing import Literal
from framework.interfaces import Scheduler
from framework.registry import SCHEDULERS

@SCHEDULERS.register("{name}")
class Mine(Scheduler):
    """For a test."""
    def __init__(self, *, depth: int, mode: Literal["a", "b"] = "a", sizes: list[int] = [1]) -> None:
        self.depth = depth
    def schedule(self, queue, plan) -> None: ...
'''


@pytest.fixture
def mine(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, str]:
    """The overrides that load and choose a plugin which only this test knows."""
    name = request.node.name.split("[")[0][:40]
    path = tmp_path / f"{name}.py"
    path.write_text(PLUGIN.format(name=name))
    return f"plugins=[{path}]", f"scheduler={name}"


def test_the_default_configuration_composes() -> None:
    cfg = compose()
    assert (cfg.model.name, cfg.workload.name, cfg.scheduler.name) == ("smollm2", "chat", "chunked_prefill")
    assert (cfg.eviction.name, cfg.attention.name, cfg.sampler.name) == ("lru", "auto", "full")
    assert (cfg.graph.name, cfg.executor.name, cfg.tracker.name) == ("auto", "local", "wandb")
    assert OmegaConf.to_container(cfg.engine, resolve=True) == {
        "max_num_seqs": None,
        "max_num_batched_tokens": None,
        "max_model_len": None,
        "block_size": None,
        "num_blocks": None,
        "kv_memory_fraction": 0.9,
        "prefix_caching": True,
        "overlap": 1,
        "seed": 0,
    }


def test_a_mistyped_experiment_is_not_the_default_cell() -> None:
    with pytest.raises(
        ValueError,
        match=r"experiment=ablatoin does not exist \(did you mean 'ablation'\?\); experiment has",
    ):
        compose(["experiment=ablatoin"])


def test_the_seed_of_the_engine_follows_the_run() -> None:
    assert compose(["seed=7"]).engine.seed == 7
    assert compose(["seed=7", "engine.seed=3"]).engine.seed == 3


@pytest.mark.parametrize("path", sorted(CONF_DIR.glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_experiments_compose(path: Path) -> None:
    compose([f"experiment={path.stem}"])


@pytest.mark.parametrize(
    "choice",
    [
        f"{path.parent.name}={path.stem}"
        for path in sorted(CONF_DIR.glob("*/*.yaml"))
        if path.parent.name != "experiment"
    ],
)
def test_presets_compose(choice: str) -> None:
    overrides = {"model=custom": ["model.path=some/folder"], "workload=jsonl": ["workload.path=x"]}.get(choice, [])
    assert compose([choice, *overrides])[choice.partition("=")[0]].name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scheduler=chunked_prefil", r"scheduler=chunked_prefil does not exist \(did you mean 'chunked_prefill'\?\)"),
        ("model=smolm2", r"model=smolm2 does not exist \(did you mean 'smollm2'\?\); model has the options: custom, "),
        ("engine.max_num_seq=3", r"engine\.max_num_seq'.*did you mean 'max_num_seqs'.*keys: max_num_seqs, "),
        ("scheduler.nonsense=3", r"scheduler\.nonsense'.*scheduler=chunked_prefill has the keys: name"),
        ("scheduller=lru", r"did you mean 'scheduler'"),
        ("+nonsense=3", r"unknown key 'nonsense'"),
        ("++scheduler.nonsense=3", r"nonsense.*keys: name"),
        ("++engine.nonsense=3", r"nonsense.*keys: max_num_seqs"),
        ("engine.max_num_seqs=many", r"^engine\.max_num_seqs=many is not an integer$"),
        ("engine.kv_memory_fraction=x", r"^engine\.kv_memory_fraction=x is not a number$"),
        ("engine.prefix_caching=maybe", r"^engine\.prefix_caching=maybe is not true or false$"),
        ("model.revision=[a]", r"^model\.revision=.*a.* is not text$"),
        ("seed=x", r"^seed=x is not an integer$"),
        ("seed=-1", r"^seed=-1: must be at least 0; use 0$"),
        ("scheduler=random scheduler.seed=-2", r"^scheduler\.seed=-2: must be at least 0; use 0$"),
        ("engine.prefix_caching=3.5", r"prefix_caching"),
        ("model=custom", r"model\.(path|name)"),
        ("workload=jsonl", r"no value for workload\.path"),
        ("plugins=nonsense.py", r"plugins takes a list"),
        ("plugins=[nowhere/nonsense.py]", r"nowhere/nonsense\.py\]: no such file"),
        ("plugins=[no_such_module]", r"No module named 'no_such_module'"),
        ("engine.overlap=2", r"engine\.overlap=2"),
        ("scheduler=[", r"\["),
    ],
)
def test_mistakes_are_named_with_their_remedy(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose(override.split())


def test_plugins_given_by_path_are_typed(mine: tuple[str, str]) -> None:
    assert compose([*mine, "scheduler.depth=3"]).scheduler.depth == 3
    with pytest.raises(ValueError, match=r"^scheduler\.depth=deep is not an integer$"):
        compose([*mine, "scheduler.depth=deep"])
    with pytest.raises(ValueError, match=r"no value for scheduler\.depth"):
        compose([*mine])
    with pytest.raises(ValueError, match=r"'c' is not one of a, b"):
        compose([*mine, "scheduler.depth=3", "scheduler.mode=c"])


def test_a_preset_keeps_the_types_of_its_plugin(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    preset = tmp_path / "scheduler" / "small.yaml"
    search = f"hydra.searchpath=[{tmp_path.as_uri()}]"
    preset.write_text("defaults: [chunked_prefill, _self_]\nmax_chunk_tokens: 32\n")
    scheduler = compose([search, "scheduler=small"]).scheduler
    assert (scheduler.name, scheduler.max_chunk_tokens) == ("chunked_prefill", 32)
    preset.write_text("defaults: [chunked_prefill, _self_]\nmax_chunk_token: 32\n")
    with pytest.raises(ValueError, match=r"In 'scheduler/small': .*max_chunk_token'.*did you mean 'max_chunk_tokens'"):
        compose([search, "scheduler=small"])
    preset.write_text("defaults: [chunked_prefill, _self_]\nmax_chunk_tokens: many\n")
    with pytest.raises(ValueError, match=r"In 'scheduler/small': .*max_chunk_tokens=many is not an integer"):
        compose([search, "scheduler=small"])


def test_a_plugin_list_in_a_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "late.yaml").write_text("# @package _global_\nplugins: [some/late.py]\n")
    with pytest.raises(ValueError, match="give it on the command line"):
        compose([f"hydra.searchpath=[{tmp_path.as_uri()}]", "experiment=late"])


def test_composing_leaves_a_running_hydra_app_alone() -> None:
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        running = GlobalHydra.instance().hydra
        assert compose().seed == 0
        assert GlobalHydra.instance().hydra is running
    assert not GlobalHydra.instance().is_initialized()
    with pytest.raises(ValueError, match="nonsense"):
        compose(["nonsense=1"])
    assert not GlobalHydra.instance().is_initialized()


def test_plugin_paths_are_made_full_before_composition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(discovery, "discover", asked.append)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's, mine.py").touch()
    mine = str(tmp_path / "it's, mine.py")
    assert prepare(["a=1", 'plugins=["./it\'s, mine.py",pkg.mod]'])[0] == "a=1"
    assert asked.pop() == [mine, "pkg.mod"]
    (written,) = prepare(['+plugins=["it\'s, mine.py"]'])
    assert OverridesParser.create().parse_override(written).value() == [mine] == asked[-1]
    assert prepare(["plugins_dir=3", "plugins=[missing.py]"]) == ["plugins_dir=3", "plugins=['missing.py']"]


def test_a_relative_plugin_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from framework.registry import SCHEDULERS\nfrom framework.interfaces import Scheduler\n\n\n"
    source += "@SCHEDULERS.register('relative')\nclass Relative(Scheduler):\n    def schedule(self, queue, plan): ...\n"
    (tmp_path / "relative.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    cfg = compose(["plugins=[relative.py]", "scheduler=relative"])
    assert list(cfg.plugins) == [str(tmp_path / "relative.py")]
