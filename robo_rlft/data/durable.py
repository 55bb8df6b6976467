"""Files that are either the old or the new version after a crash, never a mixture."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from robo_rlft.errors import DataError

TEMPORARY = ".partial"
"""Ending of a file that is being written; leftovers of a killed writer are deleted by the next one."""


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Replace one file by `content`, on the disk itself (fsync) before this returns.

    Raises:
        DataError: the disk is full; the old file is untouched.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _explained(path, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder and its parents.

    Raises:
        DataError: it cannot be made, or there is a file in its place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explained(folder, error) from error


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder against a second writer; the lock goes with the process, however it ends.

    Raises:
        DataError: another process writes there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(f"another process is writing to {folder}: wait for it or give another path") from None
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed writer had not finished."""
    for path in folder.rglob(f"*{TEMPORARY}"):
        path.unlink()


def clear_folder(folder: Path, keep: str) -> None:
    """Delete everything in a folder but the file `keep`."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != keep:
            path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(path: Path, error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"the disk is full at {path}: free some space and go on with resume=true (collect.append=true); "
            "all that was committed is safe"
        )
    return DataError(f"cannot write {path}: {error.strerror}")
