"""What `run.py` takes beyond Hydra's overrides: `resume=DIR`, `smoke=true`, and keys that only some choices have."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from framework.app.launching.axes import NULL
from framework.app.launching.inputs import NAMES_OF_PATHS
from framework.app.launching.sweep_file import here, read_sweep
from framework.config.quote import quote
from framework.registry import REGISTRIES
from framework.registry.discovery import ROOT
from framework.toolkit.read_file import read_text, read_yaml

_KEY_OF_A_PLUGIN = re.compile(rf"({'|'.join(REGISTRIES)})\.[\w.]+=")
_HYDRAS_OWN = re.compile(r"[+~]*hydra[./]")
EXPERIMENTS = ROOT / "conf" / "experiment"


def expand(arguments: Sequence[str]) -> list[str]:
    """`arguments` as Hydra takes them.

    - `resume=DIR`: the sweep goes on in DIR. Alone, or with keys of Hydra's own (`hydra.launcher.timeout_s=60`), it
      takes the overrides that the sweep was started with.
    - `smoke=true`: the overrides under `study.smoke` of the chosen experiment's file, which make it small.
    - In a sweep, `workload.path=trace.jsonl` becomes a full path, as `plugins=[...]` always does.
    - In a sweep, `scheduler.limit=3` becomes an axis of one value: Hydra would otherwise apply it to the default one
      first, and refuse it if that scheduler has no such key, whatever `scheduler=a,b` says.

    Raises:
        ValueError: there is nothing to resume, or it is a search, or the experiment has no small form.
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
    return _late([_full_paths(text) for text in rest]) if {"-m", "--multirun"} & set(rest) else rest


def _full_paths(text: str) -> str:
    """An override with full paths in place of relative ones that lead to something: a cell or a later `resume` may run
    in another folder. This applies to keys whose name ends in path, file, folder or tokenizer."""
    key, equals, _ = text.partition("=")
    if not equals or key.rpartition(".")[2].rpartition("_")[2] not in (*NAMES_OF_PATHS, "tokenizer"):
        return text
    override = OverridesParser.create().parse_override(text)
    values = list(override.sweep_iterator()) if override.is_choice_sweep() else [override.value()]
    full = [_full_path(value.text if isinstance(value, QuotedString) else value) for value in values]
    if not any(full) or text.partition("=")[2].startswith("shuffle("):
        return text
    return f"{key}={','.join(quote(path or value) for path, value in zip(full, values, strict=True))}"


def _full_path(value: object) -> str | None:
    """The full path of a relative path that leads to something; None for any other value."""
    path = Path(value).expanduser() if isinstance(value, str) and value else None
    return str(path.absolute()) if path is not None and path.exists() and not path.is_absolute() else None


def _late(arguments: list[str]) -> list[str]:
    """`arguments` with the keys of plugins as axes, of one value if they have no more."""
    parser = OverridesParser.create()
    late = []
    for text in arguments:
        key, _, value = text.partition("=")
        is_late = bool(_KEY_OF_A_PLUGIN.match(text)) and not parser.parse_override(text).is_sweep_override()
        if is_late:
            value = NULL if parser.parse_override(text).value() is None else value or quote("")
        late.append(f"{key}=choice({value})" if is_late else text)
    return late


def _resume(folder: Path, rest: list[str]) -> list[str]:
    if not {"-m", "--multirun"} & set(rest):
        raise ValueError(f"resume={folder}: a sweep is resumed, with -m: python run.py -m resume={folder} ...")
    if any(text.startswith("hydra.sweep.dir=") for text in rest):
        raise ValueError(f"resume={folder} is the folder of the sweep; leave hydra.sweep.dir out")
    if not folder.is_dir():
        raise ValueError(f"resume={folder}: no such folder")
    if not any("=" in text and not _HYDRAS_OWN.match(text) for text in rest):
        sweep = read_sweep(folder)
        if sweep is None:
            raise ValueError(f"resume={folder}: it has no sweep.json; give the overrides of the sweep as well")
        given = {_key(text) for text in rest}
        rest = [*(text for text in sweep.arguments if _key(text) not in given), *rest]
        if sweep.made_at != here(folder):
            print(
                f"note: {folder} was made by {sweep.made_at or 'an unknown process'}, and what it says is run as a "
                f"program is: run.py {shlex.join(rest)}",
                file=sys.stderr,
                flush=True,
            )
    if _is_search(rest):
        raise ValueError(
            f"resume={folder}: a search cannot be resumed as a grid is; start it again, in a new folder. It goes on "
            "from the trials of earlier ones if all have hydra.sweeper.storage=sqlite:///search.db "
            "hydra.sweeper.study_name=NAME"
        )
    return [*rest, f"hydra.sweep.dir={quote(str(folder))}", "hydra.sweeper.resume=true"]


def _is_search(rest: Sequence[str]) -> bool:
    """Whether Optuna chooses the cells, here or by the experiment."""
    chosen = {_key(text): text.partition("=")[2] for text in rest}
    if "hydra/sweeper" in chosen:
        return chosen["hydra/sweeper"] not in ("grid", "capacity")
    path = EXPERIMENTS / f"{chosen.get('experiment')}.yaml"
    sweeper = re.search(r"override /hydra/sweeper: *(\w+)", read_text(path)) if path.is_file() else None
    return sweeper is not None and sweeper[1] not in ("grid", "capacity")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _smoke(value: str, rest: Sequence[str]) -> list[str]:
    chosen = [text.partition("=")[2] for text in rest if text.startswith("experiment=")]
    if value != "true" or not chosen:
        raise ValueError(f"smoke={value}: smoke=true runs a small form of experiment=NAME; name one")
    return smoke_overrides(chosen[-1])


def smoke_overrides(experiment: str) -> list[str]:
    """The overrides that make a study small, from its file.

    Raises:
        ValueError: no such study, or none that says how.
    """
    path = EXPERIMENTS / f"{experiment}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in EXPERIMENTS.glob("*.yaml")))
        raise ValueError(f"experiment={experiment} does not exist; choose from {names}")
    study = values.get("study") if isinstance(values := read_yaml(path), dict) else None
    smoke = study.get("smoke") if isinstance(study, dict) else None
    if not isinstance(smoke, list) or not smoke:
        raise ValueError(f"smoke=true: {path} lists no overrides under study.smoke")
    return [str(text) for text in smoke]
