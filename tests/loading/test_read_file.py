"""Every reader of a JSON, YAML or text file names its file, whatever is in it."""

import contextlib
import json
import math
import os
import threading
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from framework.app.launching.resume import own_overrides
from framework.app.launching.sweep_file import Cell, Sweep, read_sweep
from framework.interfaces.workload import WorkloadContext
from framework.models.loading.byte_tokenizer import byte_tokenizer
from framework.models.loading.load import load_model
from framework.records.analysis.cells import read_cell
from framework.records.record import Record, RecordWriter, read_record
from framework.registry import WORKLOADS
from framework.registry.discovery import discover
from framework.toolkit.read_file import MAX_DEPTH, parse_json, read_json, read_json_object, read_text, read_yaml
from framework.toolkit.step_profile import StepProfile
from framework.workloads.jsonl_line import request_from_line
from tests.loading.tokenizer_writer import write_tokenizer

PROFILE = next((Path(__file__).parents[2] / "plugins").rglob("*.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"\0\0\0\0", "is not valid JSON"),
        (b"\xff{}", "is not UTF-8 at byte 0"),
        (b"[" * 200_000, "is nested more than 64 levels deep"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "is nested more than 64 levels deep"),
        (b'{"a": NaN}', "holds the number nan; numbers must be finite"),
        (b'{"a": [1e999]}', "holds the number inf; numbers must be finite"),
        (b'{"a": 1' + b"0" * 400 + b"}", "holds a number of 401 digits"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "is not valid JSON"),
        (b'{"a\\ud800": 1}', "holds half of a surrogate pair"),
        (b'[["\\udc00"]]', "holds half of a surrogate pair"),
    ],
)
def test_json(tmp_path, content, message):
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{path} {message}"):
        read_json(path)


def test_what_is_fine(tmp_path):
    values = {"a": [1, 2.5, None, True, {"é": "\N{PARTY POPPER}"}], "deep": json.loads("[" * 60 + "]" * 60)}
    (tmp_path / "a.json").write_text(json.dumps(values))
    assert read_json_object(tmp_path / "a.json") == values
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(values))
    assert read_yaml(tmp_path / "a.yaml") == values
    assert json.dumps(json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)) == json.dumps(
        parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("\x00", "is not valid YAML"),
        ("- &a [*a]", ""),  # a list that holds itself is read all the same
        ("[" * 1000, "is nested more than 64 levels deep|is not valid YAML"),
        ("a: .inf", "holds the number inf"),
        ("a: 2020-99-99", "is not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_yaml(tmp_path, content, message):
    path = tmp_path / "some.yaml"
    path.write_text(content)
    if "&a" in content:
        read_yaml(path)
        return
    with pytest.raises(ValueError, match=rf"^{path} ({message})"):
        read_yaml(path)


def test_an_alias_in_an_alias_is_read_at_once(tmp_path):
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    assert len(read_yaml(tmp_path / "laughs.yaml")) == 40


def test_what_is_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"/dev/zero is a device or socket, not a file"):
        read_text(Path("/dev/zero"))
    with pytest.raises(ValueError, match=rf"{tmp_path} is a folder, not a file"):
        read_text(tmp_path)
    with pytest.raises(ValueError, match=r"can't be the name of a file: it holds a NUL"):
        read_text(Path("a\0b"))
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"gone is missing"):
        read_json_object(tmp_path / "gone")
    (tmp_path / "large").write_bytes(b"x" * 101)
    with pytest.raises(ValueError, match=r"large holds more than 100 bytes"):
        read_text(tmp_path / "large", max_bytes=100)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("hello",))
    writer.start()
    assert read_text(tmp_path / "pipe") == "hello"
    writer.join()


def test_devices_and_endless_times_in_workloads(tmp_path):
    discover()
    context = WorkloadContext(vocab_size=100, max_model_len=100, seed=0, tokenizer=None)
    with pytest.raises(ValueError, match=r"/dev/zero is a device"):
        list(WORKLOADS.get("jsonl")(path="/dev/zero").requests(context))
    with pytest.raises(ValueError, match=r"/dev/zero is no file"):
        WORKLOADS.get("trace")(path="/dev/zero")
    path = tmp_path / "trace.jsonl"
    path.write_text('{"time_s": 0, "prompt_tokens": 1, "output_tokens": 1}\n'
                    '{"time_s": 1e300, "prompt_tokens": 1, "output_tokens": 1}\n')  # fmt: skip
    with pytest.raises(ValueError, match=r"trace.jsonl:2: time_s=1e\+300 must be at least 0 and at most 1e\+09 s"):
        list(WORKLOADS.get("trace")(path=str(path)).requests(context))
    with pytest.raises(ValueError, match=r"f:1: arrival_s=1e\+300 must be at least 0 and at most 1e\+09 s"):
        request_from_line('{"prompt": "a", "arrival_s": 1e300}', "f:1", {})


@pytest.mark.parametrize("content", [None, [{"type": "text", "text": "hi"}], "hi"])
def test_messages_of_a_line_take_what_templates_take(content):
    line = json.dumps({"messages": [{"role": "user", "content": content}]})
    assert request_from_line(line, "f:1", {}).messages[0]["content"] == content


@pytest.mark.parametrize("content", [5, ["hi"], {"text": "hi"}])
def test_other_contents_are_named(content):
    with pytest.raises(ValueError, match=r"f:1: messages=.* has the wrong type; expected a list of .*null"):
        request_from_line(json.dumps({"messages": [{"role": "user", "content": content}]}), "f:1", {})


def test_too_little_memory_is_not_a_damaged_file(tmp_path, monkeypatch):
    RecordWriter(tmp_path).write(Record(status="completed", cell_id="x", metrics={"a": 1.0}))
    read_cell(tmp_path)

    def out_of_memory(path):
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    monkeypatch.setattr("framework.records.analysis.cells.pq.read_metadata", out_of_memory)
    with pytest.raises(MemoryError):
        read_cell(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"cells": 5}, {"cells": [5]}, {"cells": [{"folder": 5, "overrides": []}]}, {"arguments": "x"}, {"study": 5},
        {"cells": [{"folder": "0", "overrides": [5]}]}, {"cells": [{"folder": "0", "overrides": [], "wall_s": "1"}]},
        {"cells": [{"folder": "0", "overrides": [], "status": None}]}, {"cells": [{"folder": "0", "other": 1}]},
        {"cells": [{"folder": "0"}]},
    ],
)  # fmt: skip
def test_a_sweep_file_with_other_types(tmp_path, change):
    Sweep(folder=tmp_path, study="s", cells=[Cell(folder="0", overrides=["a=1"])]).write()
    values = json.loads((tmp_path / "sweep.json").read_text())
    assert read_sweep(tmp_path).cells[0].overrides == ["a=1"]
    (tmp_path / "sweep.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(ValueError, match=r"sweep.json cannot be read: .*move it away"):
        read_sweep(tmp_path)
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(ValueError, match=r"sweep.json cannot be read"):
        read_sweep(tmp_path)


@pytest.mark.parametrize("text", ["{", "a: 1", "\x00", "[" * 900, "5"])
def test_damaged_overrides(tmp_path, text):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"\.hydra/overrides.yaml"):
        own_overrides(tmp_path)


ODD = ["", "x", "2", "\ud800", 10**400, math.nan, math.inf, 1.0]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["content", "x"]), inner, max_size=2),
    max_leaves=3,
)  # fmt: skip


def places(values, prefix=()):
    """Every place in a JSON value."""
    found = [prefix]
    if isinstance(values, dict | list):
        for key in values if isinstance(values, dict) else range(len(values)):
            found += places(values[key], (*prefix, key))
    return found


def replaced(values, place, value):
    if not place:
        return value
    copy = dict(values) if isinstance(values, dict) else list(values)
    copy[place[0]] = replaced(values[place[0]], place[1:], value)
    return copy


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = Qwen2Config(
        vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, eos_token_id=5, sliding_window=None, layer_types=None,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = [5, 6]
    model.save_pretrained(folder)
    token = {"content": "<|im_end|>", "special": True, "normalized": False}
    write_tokenizer(byte_tokenizer(), folder, eos_token=token, added_tokens_decoder={"257": token})
    assert "rope_parameters" in read_json(folder / "config.json")
    return folder


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere_in_a_model_folder(model_folder, data):
    name = data.draw(st.sampled_from(["config.json", "generation_config.json", "tokenizer_config.json"]))
    path = model_folder / name
    whole = path.read_text()
    values = json.loads(whole)
    place = data.draw(st.sampled_from(places(values)))
    path.write_text(json.dumps(replaced(values, place, data.draw(JSON))))
    try:
        with accepting(str(model_folder), "this model has no chat template"):
            loaded = load_model({"path": str(model_folder)}, device=torch.device("cpu"), dtype=torch.float32)
            loaded.tokenizer.render_chat([{"role": "user", "content": "x"}])
    finally:
        path.write_text(whole)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere_in_a_record_a_sweep_or_a_profile(tmp_path, data):
    folder = tmp_path / "0"
    RecordWriter(folder).write(Record(status="completed", cell_id="x", metrics={"a": 1.0}, requested={"b": {"c": [1]}}))
    Sweep(folder=tmp_path, cells=[Cell(folder="0", overrides=["a=1"], wall_s=1.0, gpus=["0"])]).write()
    (tmp_path / "profile.json").write_text(PROFILE.read_text())
    read = {
        folder / "summary.json": lambda: (read_cell(folder), read_record(folder)),
        tmp_path / "sweep.json": lambda: read_sweep(tmp_path),
        tmp_path / "profile.json": lambda: StepProfile.read(tmp_path / "profile.json"),
    }
    path = data.draw(st.sampled_from(list(read)))
    values = json.loads(path.read_text())
    place = data.draw(st.sampled_from(places(values)[:200]))
    path.write_text(json.dumps(replaced(values, place, data.draw(JSON))))
    with accepting(path.name):
        read[path]()


@contextlib.contextmanager
def accepting(*names):
    """No error, or one that says one of `names`."""
    try:
        yield
    except ValueError as error:
        if not any(name in str(error) for name in names):
            raise
