"""A bundle's folder appears whole or not at all: written beside its place, verified there, then renamed."""

from __future__ import annotations

import glob
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from robo_rlft.errors import BundleError
from robo_rlft.export.manifest import MANIFEST_FILE
from robo_rlft.export.runtime import Controller
from robo_rlft.training.files import TEMPORARY, make_folder, sync_folder, write_synced, writing


def publish(files: Mapping[str, bytes], target: Path | str, overwrite: bool = False) -> Path:
    """Write a bundle, load it as a runtime would, which compares the golden actions, and give it its place.

    Args:
        files: content of every file by name.
        target: the bundle's folder. One that holds the same bundle already is left alone.
        overwrite: replace another bundle at `target`.

    Raises:
        BundleError: the model does not reproduce its golden actions, or `target` holds something else.
        RunError: the disk is full or the place cannot be written.
    """
    folder = Path(target)
    temporary = make_folder(folder.parent) / f"{TEMPORARY}{folder.name}-{uuid.uuid4().hex[:8]}"
    try:
        _write(temporary, files)
        Controller(temporary)
        _place(temporary, folder, files, overwrite)
    finally:
        _clean(folder)
    return folder


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    with writing(folder):
        folder.mkdir()
        for name, data in files.items():
            write_synced(folder / name, data)
        sync_folder(folder)


def _place(temporary: Path, target: Path, files: Mapping[str, bytes], overwrite: bool) -> None:
    if target.exists() and _same(target, files):
        return
    with writing(target):
        if _occupied(target):
            _refuse_unless(overwrite, target)
            _exchange(temporary, target)
        else:
            temporary.rename(target)
        sync_folder(target.parent)


def _exchange(temporary: Path, target: Path) -> None:
    """Put the new folder in the place of the old one, which comes back if that fails."""
    aside = temporary.with_name(f"{temporary.name}-old")
    target.rename(aside)
    try:
        temporary.rename(target)
    except BaseException:
        aside.rename(target)
        raise


def _clean(target: Path) -> None:
    """Remove temporary folders of this bundle, also those an earlier kill left behind."""
    for folder in target.parent.glob(f"{TEMPORARY}{glob.escape(target.name)}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _same(target: Path, files: Mapping[str, bytes]) -> bool:
    return all((target / name).is_file() and (target / name).read_bytes() == data for name, data in files.items())


def _occupied(target: Path) -> bool:
    return target.exists() and not (target.is_dir() and not any(target.iterdir()))


def _refuse_unless(overwrite: bool, target: Path) -> None:
    if not (target / MANIFEST_FILE).is_file():
        raise BundleError(f"{target} exists and is no controller bundle: choose another folder with export.dir=PATH")
    if not overwrite:
        raise BundleError(
            f"{target} holds another bundle: choose another folder with export.dir=PATH, or add export.overwrite=true"
        )
