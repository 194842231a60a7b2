"""A configuration reaches a worker as it was, and what a worker decodes cannot run anything."""

import enum
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.config.compose import compose
from framework.config.settings import Settings, settings_of
from framework.execution.parallel import follow
from framework.execution.parallel.config_codec import decode_config, encode_config


class Kind(enum.Enum):
    ONE = "first"


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just(Kind.ONE)
keys = st.text() | st.integers() | st.booleans() | st.sampled_from(["__enum__", "__pairs__"])
trees = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=8)


@given(trees)
def test_it_comes_out_as_it_went_in(value: Any) -> None:
    assert decode_config(json.loads(json.dumps(encode_config(value)))) == value


def test_an_enum_is_looked_up_and_nothing_else() -> None:
    for place in (["os", "system", "ls"], ["nowhere", "Kind", "ONE"], [__name__, "Kind", "TWO"], [__name__, "st", "x"]):
        with pytest.raises(ValueError, match="which this rank does not know"):
            decode_config({"__enum__": place})


def test_what_no_configuration_holds_is_refused() -> None:
    with pytest.raises(TypeError, match="holds no PosixPath"):
        encode_config({"path": Path("x")})


def test_ranks_exchange_no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("pickled")

    for name in ("dumps", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    settings = settings_of(compose(["model=tiny", "executor.tp=2", "sampler.name=gumbel"]))
    start = json.loads(json.dumps(follow.start_message(settings, name="n", rank=1, size=2, threads=1)))
    assert Settings.of(decode_config(start["config"])) == settings
    folder = Path(follow.__file__).parent
    assert not [
        path.name for path in folder.glob("*.py") if "pickle" in path.read_text().replace("unlike a pickle", "")
    ]
