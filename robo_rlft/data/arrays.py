"""One array of a data set on disk: appending rows so that a kill leaves the committed ones intact, and reading them.

Chunk files hold rows in order. A full file is never touched again; the last, partly filled one is replaced by a longer
one with the same beginning. So the first n rows on disk stay the same n rows, whatever happens after they were written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs.zstd import Zstd

from robo_rlft.data.durable import write_atomic
from robo_rlft.data.layout import Column, DamagedError
from robo_rlft.data.shards import decode_shard, encode_shard, sharding_codec

ZSTD_LEVEL = 1
_METADATA = "zarr.json"
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


class ColumnWriter:
    """Appends rows to one array.

    Full files are written at once, so memory stays below one file's content; `flush` writes the rest.

    Args:
        path: the data set.
        column: which array.
        rows: rows that are committed; everything behind them is removed.
    """

    def __init__(self, path: Path, column: Column, rows: int) -> None:
        self._path, self._column, self._rows = path, column, rows
        full, partial = divmod(rows, column.rows_per_file)
        self._pending: list[np.ndarray] = [self._read_partial(full, partial)] if partial else []
        self._trim(column.num_files(rows))

    def append(self, rows: np.ndarray) -> None:
        """Add rows [n, ...]."""
        self._pending.append(rows)
        self._rows += len(rows)
        size = self._column.rows_per_file
        while sum(map(len, self._pending)) >= size:
            block = np.concatenate(self._pending)
            self._write_file(self._rows - len(block), block[:size])
            self._pending = [block[size:].copy()]

    def flush(self) -> None:
        """Bring every row and the array's length to the disk."""
        rest = sum(map(len, self._pending))
        if rest:
            block = np.concatenate(self._pending)
            self._write_file(self._rows - rest, block)
            self._pending = [block]
        metadata = json.dumps(array_metadata(self._column, self._rows), indent=2)
        write_atomic(self._path / self._column.name / _METADATA, metadata.encode())

    def _write_file(self, first_row: int, block: np.ndarray) -> None:
        number = first_row // self._column.rows_per_file
        write_atomic(self._path / self._column.file(number), _encode(self._column, block))

    def _read_partial(self, number: int, rows: int) -> np.ndarray:
        if self._column.is_image:
            return np.array(decode_shard(self._path, self._column, number, rows))
        first = number * self._column.rows_per_file
        return read_array(self._path, self._column, first + rows)[first:]

    def _trim(self, files: int) -> None:
        number = files
        while (file := self._path / self._column.file(number)).exists():
            file.unlink()
            number += 1


def read_array(path: Path, column: Column, rows: int) -> np.ndarray:
    """The first `rows` rows of a low-dimensional array.

    Raises:
        DamagedError: files are missing, cut off or altered, or the array has another shape or dtype.
    """
    array = _open(path, column)
    check_metadata(path, column, rows)
    for number in range(-(-rows // array.chunks[0])):
        file = path / column.name / array.metadata.encode_chunk_key((number, *(0 for _ in column.shape)))
        if not file.exists():
            raise DamagedError(path, column.name, f"{rows} rows", f"no file {file.relative_to(path)}")
    try:
        return np.asarray(array[:rows])
    except (RuntimeError, ValueError, OSError, TypeError) as error:
        raise DamagedError(path, column.name, f"{rows} rows", f"an unreadable chunk file ({error})") from error


def check_metadata(path: Path, column: Column, rows: int) -> None:
    """Compare an array's metadata with what the header and the spec promise.

    Raises:
        DamagedError: naming what differs.
    """
    array = _open(path, column)
    found = f"{array.shape[0]} rows of {array.dtype} {array.shape[1:]}" if array.shape else "a scalar"
    if array.shape[1:] != column.shape or array.dtype != np.dtype(column.dtype) or array.shape[0] < rows:
        raise DamagedError(path, column.name, f"{rows} rows of {column.dtype} {column.shape}", found)


def array_metadata(column: Column, rows: int) -> dict[str, Any]:
    """The array's zarr v3 metadata document."""
    bytes_codec = _BYTES if np.dtype(column.dtype).itemsize > 1 else {"name": "bytes"}
    zstd = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": True}}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, *column.shape],
        "data_type": column.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [column.rows_per_file, *column.shape]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if column.dtype == "bool" else 0,
        "codecs": [sharding_codec(column.shape)] if column.is_image else [bytes_codec, zstd],
        "attributes": {},
        "storage_transformers": [],
    }


def write_groups(path: Path, columns: dict[str, Column]) -> None:
    """Write the metadata of the groups between the root and the arrays."""
    content = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}, indent=2).encode()
    for name in columns:
        for parent in list(Path(name).parents)[:-1]:
            if not (path / parent / _METADATA).exists():
                write_atomic(path / parent / _METADATA, content)


def _open(path: Path, column: Column) -> Any:
    if not (path / column.name / _METADATA).exists():
        raise DamagedError(path, column.name, "an array", f"no file {column.name}/{_METADATA}")
    try:
        return zarr.open_array(str(path / column.name), mode="r", zarr_format=3)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DamagedError(path, column.name, "a zarr v3 array", f"metadata that cannot be read ({error})") from error


def _encode(column: Column, block: np.ndarray) -> bytes:
    if column.is_image:
        return encode_shard(block, column.rows_per_file)
    chunk = np.zeros((column.rows_per_file, *column.shape), column.dtype)
    chunk[: len(block)] = block
    return Zstd(level=ZSTD_LEVEL, checksum=True).encode(chunk)
