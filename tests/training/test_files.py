from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from robo_rlft.errors import RunError
from robo_rlft.training.files import TEMPORARY, atomic_write, make_folder, writing


def fail_at(monkeypatch: pytest.MonkeyPatch, function: str, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, refuse)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    fail_at(monkeypatch, function, errno.ENOSPC)
    with pytest.raises(RunError, match=r"cannot write .*file: the disk is full; free some space"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_really_full_device_is_one_sentence() -> None:
    def fill() -> None:
        with writing(Path("/dev/full")), open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    with pytest.raises(RunError, match="the disk is full"):
        fill()


def test_a_kill_at_any_line_leaves_old_or_new(tmp_path: Path, killed_at_line: Callable[..., bool]) -> None:
    path = tmp_path / "file"
    seen = set()
    line = 0
    atomic_write(path, b"old")
    while killed_at_line(lambda: atomic_write(path, b"new"), ("training/files.py",), line):
        seen.add(path.read_bytes())
        atomic_write(path, b"old")
        line += 1
    assert seen == {b"old", b"new"}
    assert line > 10


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*runs/a: a file is in the way"):
        make_folder(tmp_path / "runs" / "a")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        (tmp_path / "absent").read_bytes()


def test_temporary_files_are_recognisable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (names.append(Path(a).name), replace(a, b)))
    atomic_write(tmp_path / "file", b"")
    assert names[0].startswith(TEMPORARY)
