"""Two words of `run.py` that stand for overrides: `resume=DIR` and `smoke=true`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from framework.discovery import ROOT
from framework.launching.sweep_file import read_sweep

EXPERIMENTS = ROOT / "conf" / "experiment"


def expand(arguments: Sequence[str]) -> list[str]:
    """`arguments` with these words replaced by what they stand for.

    - `resume=DIR`: the sweep goes on in DIR. Alone, it takes the overrides that the sweep was started with.
    - `smoke=true`: the overrides under `study.smoke` of the chosen experiment's file, which make it small.

    Raises:
        ValueError: there is nothing to resume, or the experiment has no small form.
    """
    rest, words = [], {}
    for text in arguments:
        key, equals, value = text.partition("=")
        if equals and key in ("resume", "smoke"):
            words[key] = value
        else:
            rest.append(text)
    if "resume" in words:
        rest = _resume(Path(words["resume"]).expanduser().absolute(), rest)
    if words.get("smoke", "false") != "false":
        rest += _smoke(words["smoke"], rest)
    return rest


def _resume(folder: Path, rest: list[str]) -> list[str]:
    if not {"-m", "--multirun"} & set(rest):
        raise ValueError(f"resume={folder}: a sweep is resumed, with -m: python run.py -m resume={folder} ...")
    if any(text.startswith("hydra.sweep.dir=") for text in rest):
        raise ValueError(f"resume={folder} is the folder of the sweep; leave hydra.sweep.dir out")
    if not folder.is_dir():
        raise ValueError(f"resume={folder}: no such folder")
    if not any("=" in text for text in rest):
        sweep = read_sweep(folder)
        if sweep is None:
            raise ValueError(f"resume={folder}: it has no sweep.json; give the overrides of the sweep as well")
        rest = [*rest, *sweep.arguments]
    return [*rest, f"hydra.sweep.dir='{folder}'", "hydra.sweeper.resume=true"]


def _smoke(value: str, rest: Sequence[str]) -> list[str]:
    chosen = [text.partition("=")[2] for text in rest if text.startswith("experiment=")]
    if value != "true" or not chosen:
        raise ValueError(f"smoke={value}: smoke=true runs a small form of experiment=NAME; name one")
    return smoke_overrides(chosen[-1])


def smoke_overrides(experiment: str) -> list[str]:
    """What makes a study small, from its file.

    Raises:
        ValueError: no such study, or none that says how.
    """
    path = EXPERIMENTS / f"{experiment}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in EXPERIMENTS.glob("*.yaml")))
        raise ValueError(f"experiment={experiment} does not exist; choose from {names}")
    smoke = OmegaConf.select(OmegaConf.load(path), "study.smoke")
    if not smoke:
        raise ValueError(f"smoke=true: {path} lists no overrides under study.smoke")
    return [str(text) for text in smoke]
