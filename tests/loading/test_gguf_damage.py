"""Damaged GGUF files: an error that names the file, at once, whatever the bytes say."""

import struct
import time
import tracemalloc

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framework.models.loading.load import load_model
from tests.loading.gguf_writer import write_gguf


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    write_gguf(path)
    return path.read_bytes()


def load(path):
    return load_model({"path": str(path)}, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("keep", [0, 3, 23, 40, 3000, -50])
def test_a_truncated_file_is_named(tmp_path, whole, keep):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=r"tiny.gguf is truncated or not a GGUF file.*download it again"):
        load(path)


def array_length_at(whole, key):
    """The place of the length of an array: after the key, its type and the type of its items."""
    return whole.index(key.encode()) + len(key) + 8


@pytest.mark.parametrize("key", ["token_type", "tokens", "merges"])
@pytest.mark.parametrize("length", [2**31, 2**40, 2**63, 2**64 - 1])
def test_a_length_beyond_the_file_costs_nothing(tmp_path, whole, key, length):
    path = tmp_path / "tiny.gguf"
    place = array_length_at(whole, f"tokenizer.ggml.{key}")
    path.write_bytes(whole[:place] + struct.pack("<Q", length) + whole[place + 8 :])
    start_s = time.process_time()
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"tiny.gguf is truncated.*it states {length} .*{key}, but ends \d+ bytes"):
        load(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert time.process_time() - start_s < 2


@pytest.mark.parametrize(("place", "what"), [(8, "tensors"), (16, "keys")])
def test_counts_beyond_the_file(tmp_path, whole, place, what):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(whole[:place] + struct.pack("<Q", 2**50) + whole[place + 8 :])
    with pytest.raises(ValueError, match=rf"tiny.gguf is truncated.*states {2**50} {what}"):
        load(path)


def test_texts_that_are_not_utf_8(tmp_path, whole):
    path = tmp_path / "tiny.gguf"
    for text in (b"general.architecture", b"smollm", b"hello"):
        place = whole.index(text)
        path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"tiny.gguf .*is not UTF-8 at byte"):
            load(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"gone.gguf can't be read"):
        load(tmp_path / "gone.gguf")
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(ValueError, match=r"folder.gguf can't be read"):
        load(tmp_path / "folder.gguf")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_gives_a_model_or_an_error_that_names_the_file(tmp_path, whole, data):
    header = whole.index(b"token_embd.weight") + 2500
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, header))
        broken[place : place + 1] = data.draw(st.binary(min_size=0, max_size=9))
    path = tmp_path / "tiny.gguf"
    path.write_bytes(broken)
    try:
        load(path)
    except ValueError as error:
        if "tiny.gguf" not in str(error):
            raise
