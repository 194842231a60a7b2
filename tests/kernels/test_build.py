"""Compiling and loading: what is said when it can't be done, and that a sound cached library, and no other, is used."""

import os
import random
import stat
from pathlib import Path

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


def test_missing_compiler(monkeypatch, fresh_load, capsys):
    import torch

    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "CXX='no-such-compiler' is not on the path; install a C++ compiler" in native.unavailable_reason()
    assert linear_kernel_name(torch.float32) == "onednn"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: slow CPU kernels: CXX='no-such-compiler' is not on the path")
    with pytest.raises(RuntimeError, match="no-such-compiler"):
        native.library()


def test_failing_compiler(monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho internal error >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("SERVELAB_CACHE", str(tmp_path))
    with pytest.raises(BuildError, match=r"broken cannot compile the CPU kernels \(internal error\)"):
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


def test_unwritable_cache(monkeypatch, tmp_path, fresh_load, capsys):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("SERVELAB_CACHE", str(file))
    monkeypatch.setenv("CXX", "true")
    with pytest.raises(BuildError, match="set SERVELAB_CACHE to another folder"):
        build_library()
    assert native.unavailable_reason()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: slow CPU kernels: {file}")


def test_a_library_that_cannot_be_loaded(monkeypatch, tmp_path, fresh_load, capsys):
    """A symbol is missing, as where PyTorch has no OpenMP."""
    library = tmp_path / "x.so"
    library.write_bytes(b"\x7fELF")
    monkeypatch.setattr(native, "build_library", lambda: library)
    assert "PyTorch built with OpenMP" in native.unavailable_reason()
    assert capsys.readouterr().err.count("warning: slow CPU kernels") == 1


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 3]


def flip(data: bytes) -> bytes:
    place = random.Random(0).randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """One that is fast, with a cache of its own."""
    path = tmp_path / "fake"
    path.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\nwhile [ "$1" != -o ]; do shift; done\nseq 1000 > "$2"\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setenv("SERVELAB_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    "damage", [truncate, flip, lambda data: b"", lambda data: b"garbage", lambda data: data + b"x"]
)
def test_a_damaged_library_is_built_again(compiler, capsys, damage):
    cached = build_library()
    sound = cached.read_bytes()
    cached.write_bytes(damage(sound))
    assert build_library() == cached
    assert cached.read_bytes() == sound
    assert capsys.readouterr().err == f"warning: {cached} is damaged: the CPU kernels are compiled again\n"
    assert build_library() == cached
    assert capsys.readouterr().err == ""
    assert list(cached.parent.iterdir()) == [cached]


def test_it_is_on_the_disk_before_it_has_its_name(monkeypatch, compiler):
    done, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"), fsync(fd))
    )
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("rename"), replace(self, target)))
    build_library()
    assert done == ["file", "rename", "folder"]
