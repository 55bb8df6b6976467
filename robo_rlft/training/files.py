"""Writing files so that neither a kill, a power cut nor a full disk leaves a half-written one.

A file appears under its name only when its bytes are on the disk: temporary file beside it, fsync, rename, fsync
of the folder. Every failure the user can put right (disk full, no permission) becomes one `RunError`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robo_rlft.errors import RunError

TEMPORARY = ".tmp-"
"""Prefix of files and folders that a kill may leave behind; nobody reads them, the next writer removes them."""


def atomic_write(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a reader sees the old content or the new one, never a part.

    Raises:
        RunError: the disk is full or the folder cannot be written; the old file is still there.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    with writing(path):
        try:
            write_synced(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until its bytes are on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk: a rename is lasting only after this."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> Path:
    """Create a folder and its parents.

    Raises:
        RunError: a file is in the way, or the place cannot be written.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals while writing `path` into a `RunError`; other errors pass."""
    try:
        yield
    except OSError as error:
        if (reason := _REASONS.get(error.errno or 0)) is None:
            raise
        raise RunError(f"cannot write {path}: {reason}") from error


_FULL = (
    "the disk is full; free some space and run the same command again, it continues from the last checkpoint, "
    "which is intact"
)
_DENIED = "no permission; choose another folder with run.dir=PATH"
_REASONS: dict[int, str] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "the file would be larger than the disk or a limit allows; choose another folder with run.dir=PATH",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: "the disk is read-only; choose another folder with run.dir=PATH",
    errno.EEXIST: "a file is in the way of the folder; choose another folder with run.dir=PATH",
    errno.ENOTDIR: "a file is in the way of the folder; choose another folder with run.dir=PATH",
    errno.EIO: "the disk reports an input/output error; check it before going on",
}
