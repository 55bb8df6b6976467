"""LeRobot v3: rows in parquet files that hold many episodes each, images in mp4 files that do, too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robo_rlft.data.converters.foreign import Foreign, Recorded, as_flags, as_frames, as_numbers, image_spec
from robo_rlft.data.converters.video import FrameReader
from robo_rlft.errors import DataError, MissingExtraError
from robo_rlft.spec import ArraySpec

NAME = "lerobot"
ACTION = "action"
REWARD = "next.reward"
SUCCESS = "next.success"
OBSERVATION = "observation."
_BOOKKEEPING = {"timestamp", "frame_index", "episode_index", "index", "task_index", "next.done"}
_NUMERIC = ("float", "int", "uint", "bool")
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class _Source:
    """The metadata of an opened data set; `table` has one dict per episode."""

    path: Path
    info: Mapping[str, Any]
    table: list[dict[str, Any]]

    @property
    def features(self) -> Mapping[str, Any]:
        return self.info["features"]

    def data_file(self, episode: Mapping[str, Any]) -> Path:
        names = {"chunk_index": episode["data/chunk_index"], "file_index": episode["data/file_index"]}
        return self.path / self.info["data_path"].format(**names)

    def video_file(self, episode: Mapping[str, Any], key: str) -> Path:
        names = {n: episode[f"videos/{key}/{n}"] for n in ("chunk_index", "file_index")}
        return self.path / self.info["video_path"].format(video_key=key, **names)


def matches(path: Path) -> bool:
    """The folder looks like one."""
    return (path / "meta" / "info.json").exists()


def open_source(path: Path) -> Foreign:
    """Open the data set.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: another version of the format, or files are missing.
    """
    _parquet()
    source = _open(path)
    features = source.features
    observed = {k: f for k, f in features.items() if k.startswith(OBSERVATION)}
    cameras = {k: image_spec(tuple(f["shape"])) for k, f in observed.items() if f["dtype"] in ("video", "image")}
    images = {k: spec for k, spec in cameras.items() if spec is not None}
    numbers = {k: _vector(f) for k, f in sorted(observed.items()) if f["dtype"].startswith(_NUMERIC)}
    return Foreign(
        format=NAME,
        numbers=numbers,
        images=images,
        action=_vector(features[ACTION]),
        rate_hz=float(source.info["fps"]),
        lengths=[int(episode["length"]) for episode in source.table],
        has_reward=REWARD in features,
        has_success=SUCCESS in features,
        episodes=lambda keys: _episodes(source, keys),
        notes=_notes(features, {*numbers, *images}),
    )


def _notes(features: Mapping[str, Any], used: set[str]) -> list[str]:
    known = used | _BOOKKEEPING | {ACTION, REWARD, SUCCESS}
    notes = [f"feature '{key}' ({features[key]['dtype']}) was left out" for key in sorted(features.keys() - known)]
    wide = [k for k in sorted(used | {ACTION}) if features[k]["dtype"] in ("float64", "int64")]
    return [*notes, *(f"'{key}' is {features[key]['dtype']} and was rounded to float32" for key in wide)]


def _open(path: Path) -> _Source:
    try:
        info = json.loads((path / "meta" / "info.json").read_text())
        version = str(info["codebase_version"])
        if not version.startswith("v3"):
            raise DataError(
                f"{path} is a LeRobot {version} data set: bring it to v3.0 with LeRobot's own converter first"
            )
        if ACTION not in info["features"]:
            raise DataError(f"{path} has no feature '{ACTION}', only {sorted(info['features'])}")
        source = _Source(path, info, _episode_table(path, info))
        expected = int(info["total_episodes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}, 'meta': expected the files of LeRobot v3 ({type(error).__name__}: {error})"
        ) from error
    if len(source.table) != expected:
        raise DataError(f"{path}, 'meta/episodes': expected {expected} episodes, found {len(source.table)}")
    return source


def _episode_table(path: Path, info: Mapping[str, Any]) -> list[dict[str, Any]]:
    cameras = [k for k, f in info["features"].items() if f["dtype"] == "video"]
    wanted = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
    wanted += [f"videos/{k}/{n}" for k in cameras for n in ("chunk_index", "file_index", "from_timestamp")]
    rows: list[dict[str, Any]] = []
    for file in sorted((path / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
        rows += _parquet().read_table(file, columns=wanted).to_pylist()
    return sorted(rows, key=lambda row: row["episode_index"])


def _episodes(source: _Source, keys: Sequence[str]) -> Iterator[Recorded]:
    readers = {k: FrameReader(float(source.info["fps"])) for k in keys if source.features[k]["dtype"] == "video"}
    columns = [k for k in keys if k not in readers] + [k for k in (ACTION, REWARD, SUCCESS) if k in source.features]
    try:
        for episode, rows in zip(source.table, _episode_rows(source, columns), strict=True):
            frames = {k: _frames(source, episode, k, reader) for k, reader in readers.items()}
            yield _recorded(source, episode, keys, {**rows, **frames})
    finally:
        for reader in readers.values():
            reader.close()


def _frames(source: _Source, episode: Mapping[str, Any], key: str, reader: FrameReader) -> np.ndarray:
    start_s = float(episode[f"videos/{key}/from_timestamp"])
    return reader.read(source.video_file(episode, key), start_s, int(episode["length"]))


def _episode_rows(source: _Source, columns: list[str]) -> Iterator[dict[str, np.ndarray]]:
    """Columns of one episode after the other; reads each parquet file once, a batch of rows at a time."""
    files = list(dict.fromkeys(source.data_file(episode) for episode in source.table))
    pieces = _Pieces(row for file in files for row in _batches(file, columns))
    for episode in source.table:
        yield pieces.take(int(episode["episode_index"]), int(episode["length"]), source.path)


class _Pieces:
    """Cuts a stream of row batches at episode boundaries."""

    def __init__(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
        self._batches = batches
        self._rest: dict[str, np.ndarray] = {}

    def take(self, episode: int, length: int, path: Path) -> dict[str, np.ndarray]:
        parts: list[dict[str, np.ndarray]] = []
        missing = length
        while missing:
            batch = self._rest or next(self._batches, None)
            if batch is None:
                raise DataError(f"{path}, 'data': expected {length} rows of episode {episode}, {missing} are missing")
            part = {k: v[:missing] for k, v in batch.items()}
            rest = {k: v[missing:] for k, v in batch.items()}
            self._rest = rest if len(rest["episode_index"]) else {}
            missing -= len(part["episode_index"])
            parts.append(part)
        joined = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
        if (joined["episode_index"] != episode).any():
            raise DataError(f"{path}, 'data': expected {length} rows of episode {episode}, found rows of another one")
        return joined


def _batches(file: Path, columns: list[str]) -> Iterator[dict[str, np.ndarray]]:
    wanted = [*columns, "episode_index"]
    try:
        for batch in _parquet().ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=wanted):
            yield {name: _numpy(batch.column(name), file) for name in wanted}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file} cannot be read as parquet with columns {wanted} ({error})") from error


def _numpy(column: Any, file: Path) -> np.ndarray:
    import pyarrow.types as types

    if types.is_struct(column.type):
        return np.array([_decoded(value, file) for value in column.to_pylist()])
    rows = len(column)
    while types.is_list(column.type) or types.is_fixed_size_list(column.type) or types.is_large_list(column.type):
        column = column.flatten()
    return column.to_numpy(zero_copy_only=False).reshape(rows, -1)


def _decoded(image: Mapping[str, Any], file: Path) -> np.ndarray:
    if not image.get("bytes"):
        raise DataError(f"{file} refers to the image {image.get('path')} without holding it: embed the images first")
    bgr = cv2.imdecode(np.frombuffer(image["bytes"], np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise DataError(f"{file} holds an image that cannot be decoded")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _recorded(
    source: _Source, episode: Mapping[str, Any], keys: Sequence[str], rows: Mapping[str, np.ndarray]
) -> Recorded:
    is_image = {key: source.features[key]["dtype"] in ("video", "image") for key in keys}
    what = f"{source.path}, episode {episode['episode_index']}"
    return Recorded(
        observation={k: as_frames(rows[k], f"{what}, '{k}'") if is_image[k] else as_numbers(rows[k]) for k in keys},
        action=as_numbers(rows[ACTION]),
        reward=as_numbers(rows[REWARD])[:, 0] if REWARD in rows else None,
        success=as_flags(rows.get(SUCCESS)),
        task=next(iter(episode["tasks"]), ""),
    )


def _vector(feature: Mapping[str, Any]) -> ArraySpec:
    width = int(np.prod(feature["shape"], dtype=np.int64))
    names = feature.get("names")
    listed = next(iter(names.values()), ()) if isinstance(names, Mapping) else names or ()
    return ArraySpec((width,), names=tuple(map(str, listed)) if len(listed) == width else ())


def _parquet() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "lerobot", "reading LeRobot data sets") from None
    return parquet
