"""Compiling and loading: what is said when it can't be done, and that a cached library is used."""

import pytest

from framework.execution.kernels.cpu import build, native
from framework.execution.kernels.cpu.build import BuildError, build_library
from framework.execution.kernels.cpu.linear import linear_kernel_name


@pytest.fixture
def fresh_load(monkeypatch):
    """`native` as in a new process, and as before afterwards."""
    native._load_once.cache_clear()
    yield
    monkeypatch.undo()
    native._load_once.cache_clear()


def test_missing_compiler(monkeypatch, fresh_load):
    import torch

    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "CXX='no-such-compiler' is not on the path; install a C++ compiler" in native.unavailable_reason()
    assert linear_kernel_name(torch.float32) == "onednn"
    with pytest.raises(RuntimeError, match="no-such-compiler"):
        native.library()


def test_failing_compiler(monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho internal error >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("SERVELAB_CACHE", str(tmp_path))
    with pytest.raises(BuildError, match=r"broken can't compile the CPU kernels \(internal error\)"):
        build_library()
    assert list((tmp_path / "kernels").iterdir()) == []


def test_cache_is_keyed_and_reused(monkeypatch, tmp_path):
    compiler = tmp_path / "fake"
    compiler.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exit 0\necho x >> {tmp_path}/calls\n'
        'while [ "$1" != -o ]; do shift; done\necho built > "$2"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("SERVELAB_CACHE", str(tmp_path))
    first = build_library()
    assert build_library() == first
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
    second = build_library()
    assert second != first
    assert (tmp_path / "calls").read_text() == "x\nx\n"
    assert sorted(path.name for path in (tmp_path / "kernels").iterdir()) == sorted((first.name, second.name))


def test_unwritable_cache(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("SERVELAB_CACHE", str(file))
    monkeypatch.setenv("CXX", "true")
    with pytest.raises(BuildError, match="set SERVELAB_CACHE to another folder"):
        build_library()
