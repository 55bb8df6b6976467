"""The replay buffer of diffusion_policy: zarr v2 with `data/<key>` [T, ...] and cumulative `meta/episode_ends`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Int64
from zarr.storage import ZipStore

from robo_rlft.data.converters.foreign import Foreign, Recorded, as_frames, as_numbers, image_spec
from robo_rlft.errors import DataError
from robo_rlft.spec import ArraySpec

NAME = "diffusion_policy"
ACTION = "action"
REWARD = "reward"
_IMAGE_AXES = 4


def matches(path: Path) -> bool:
    """The folder (or zip file) looks like one."""
    if path.suffix == ".zip":
        return True
    return (path / "meta" / "episode_ends" / ".zarray").exists() or (path / ".zgroup").exists()


def open_source(path: Path) -> Foreign:
    """Open the replay buffer.

    Raises:
        DataError: it is incomplete, or uses a compression that is not installed.
    """
    arrays, ends = _open(path)
    notes: list[str] = []
    shapes = {k: a.shape[1:] for k, a in arrays.items() if k not in (ACTION, REWARD)}
    candidates = {k: image_spec(s) for k, s in shapes.items() if len(s) == _IMAGE_AXES - 1}
    images = {k: spec for k, spec in candidates.items() if spec is not None}
    for key in sorted(candidates.keys() - images.keys()):
        notes.append(f"'{key}' of shape {shapes[key]} is not a colour image and was left out")
    for key in sorted(images):
        notes += _image_notes(key, arrays[key])
    numbers = {k: ArraySpec((int(np.prod(s)),)) for k, s in sorted(shapes.items()) if k not in candidates}

    def episodes(keys: Sequence[str]) -> Iterator[Recorded]:
        for start, end in zip(np.concatenate([[0], ends[:-1]]).tolist(), ends.tolist(), strict=True):
            yield _episode(path, arrays, keys, images, slice(start, end))

    return Foreign(
        format=NAME,
        numbers=numbers,
        images=images,
        action=ArraySpec((int(np.prod(arrays[ACTION].shape[1:])),)),
        rate_hz=None,
        lengths=np.diff(ends, prepend=0).tolist(),
        has_reward=REWARD in arrays,
        has_success=False,
        episodes=episodes,
        notes=notes,
    )


def _open(path: Path) -> tuple[dict[str, Any], Int64[np.ndarray, " episode"]]:
    store = ZipStore(path, mode="r") if path.is_file() else str(path)
    try:
        group: Any = zarr.open_group(store, mode="r", zarr_format=2)
        arrays: dict[str, Any] = dict(group["data"].arrays())
        ends = np.asarray(group["meta/episode_ends"][:], np.int64)
    except (KeyError, ValueError, OSError, RuntimeError, AttributeError) as error:
        expected = "data/<key> and meta/episode_ends were expected"
        raise DataError(f"{path} is not a complete diffusion_policy data set: {expected} ({error})") from error
    _check(path, arrays, ends)
    return arrays, ends


def _check(path: Path, arrays: dict[str, Any], ends: Int64[np.ndarray, " episode"]) -> None:
    if ACTION not in arrays:
        raise DataError(f"{path} has no 'data/{ACTION}', only {sorted(arrays)}: actions are needed to learn from it")
    if not len(ends) or (np.diff(ends, prepend=0) <= 0).any():
        raise DataError(f"{path}, 'meta/episode_ends': expected growing numbers, found {ends[:8].tolist()}")
    for key, array in arrays.items():
        if array.shape[0] != ends[-1]:
            raise DataError(
                f"{path}, 'data/{key}': expected {ends[-1]} rows (the last episode end), found {array.shape[0]}"
            )


def _image_notes(key: str, array: Any) -> list[str]:
    notes = []
    if array.dtype != np.uint8:
        notes.append(
            f"'{key}' is {array.dtype} and was rounded to uint8 (as 0..1 where nothing is above 1, else 0..255)"
        )
    if image_spec(array.shape[1:]) != ArraySpec(array.shape[1:], "uint8"):
        notes.append(f"'{key}' stores channels first and was turned to (height, width, 3)")
    return notes


def _episode(path: Path, arrays: dict[str, Any], keys: Sequence[str], images: Any, rows: slice) -> Recorded:
    def read(key: str) -> np.ndarray:
        try:
            return np.asarray(arrays[key][rows])
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            raise DataError(f"{path}, 'data/{key}': rows {rows.start}..{rows.stop} cannot be read ({error})") from error

    return Recorded(
        observation={
            k: as_frames(read(k), f"{path}, 'data/{k}'") if k in images else as_numbers(read(k)) for k in keys
        },
        action=as_numbers(read(ACTION)),
        reward=as_numbers(read(REWARD))[:, 0] if REWARD in arrays else None,
    )
