"""What `quote` writes, Hydra's parser and our sweepers read back as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from framework.app.launching.axes import values
from framework.config.quote import quote

TEXT = st.text(alphabet=st.sampled_from("ab'\"\\ ,:=[]{}()$.\n\té"), max_size=8)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
KEY = st.from_regex(r"k[a-z_:]{1,5}", fullmatch=True)
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3))


def read(override: str) -> Any:
    return OverridesParser.create().parse_override(override).value()


@settings(max_examples=60, deadline=None)
@given(VALUE)
@example("x\\")
@example("it's \\'")
@example({"a b": 1, "b": [math.inf, 1e22], 3: None})
def test_hydra_reads_back_what_was_quoted(value: Any) -> None:
    assert read(f"key={quote(value)}") == value


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=3, unique=True))
@example(["x\\", "it's"])
def test_an_axis_of_texts_survives_the_sweeper(texts: list[str]) -> None:
    axis = OverridesParser.create().parse_override(f"key=choice({','.join(map(quote, texts))})")
    assert [read(cell) for cell in values(axis)] == texts


@pytest.mark.parametrize("key", ["it's", "", 'a"b', "a\nb", "1", "null"])
def test_a_key_that_the_grammar_cannot_hold_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="cannot be a key in an override"):
        quote({key: 1})
