"""Images on disk: uncompressed frames, one per inner chunk of a zarr v3 shard, read through memory maps.

A shard file is `frame 0 | frame 1 | ... | index | crc32c`. The index has one (offset, size) pair of little-endian
uint64 per frame the shard can hold, all ones where there is none. Because frames lie side by side, a file is
both a valid zarr shard and an array that can be mapped, so that a batch costs one memcpy per window.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from jaxtyping import Int64, UInt8

from robo_rlft.data.layout import Column, DamagedError

_EMPTY = np.uint64(2**64 - 1)
_CRC_BYTES = 4


class Frames:
    """All images of one camera, [rows, height, width, 3] uint8, mapped from disk.

    Args:
        path: the data set.
        column: the image array.
        rows: committed rows.

    Attributes:
        shape: of all frames together.
        shards: the mapped files, [rows in the file, height, width, 3] each.

    Raises:
        DamagedError: a file is missing, cut off or altered in its index, or the frames are stored compressed.
    """

    def __init__(self, path: Path, column: Column, rows: int) -> None:
        if rows:
            _check_codec(path, column)
        size = column.rows_per_file
        counts = [min(size, rows - first) for first in range(0, rows, size)]
        self.shards = [decode_shard(path, column, i, count) for i, count in enumerate(counts)]
        self._size = size
        self.shape = (rows, *column.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def locate(self, rows: Int64[np.ndarray, "*batch"]) -> tuple[np.ndarray, np.ndarray]:
        """Which of `shards` holds each row, and where in it."""
        return np.divmod(rows, self._size)

    def gather(self, rows: Int64[np.ndarray, "*batch"]) -> UInt8[np.ndarray, "*batch height width rgb"]:
        """A copy of some frames.

        Raises:
            IndexError: a row that is not there.
        """
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"frames {rows.min()}..{rows.max()} asked of {len(self)}")
        out = np.empty((*rows.shape, *self.shape[1:]), np.uint8)
        for target, (number, first) in zip(out.reshape(-1, *self.shape[1:]), self._places(rows), strict=True):
            target[...] = self.shards[number][first]
        return out

    def __getitem__(self, rows: slice) -> UInt8[np.ndarray, "rows height width rgb"]:
        """A copy of consecutive frames."""
        return self.gather(np.arange(*rows.indices(len(self)), dtype=np.int64))

    def _places(self, rows: np.ndarray) -> Iterator[tuple[int, int]]:
        shard, local = self.locate(rows.reshape(-1))
        return zip(shard.tolist(), local.tolist(), strict=True)


def encode_shard(frames: UInt8[np.ndarray, "rows height width rgb"], capacity: int) -> bytes:
    """The content of one shard file that can hold `capacity` frames."""
    size = frames[0].nbytes
    index = np.full((capacity, 2), _EMPTY, "<u8")
    index[: len(frames), 0] = np.arange(len(frames)) * size
    index[: len(frames), 1] = size
    encoded = index.tobytes()
    return frames.tobytes() + encoded + google_crc32c.value(encoded).to_bytes(_CRC_BYTES, "little")


def decode_shard(path: Path, column: Column, number: int, rows: int) -> UInt8[np.ndarray, "rows height width rgb"]:
    """Map the first `rows` frames of one shard file.

    Raises:
        DamagedError: the file is missing, cut off, or its index does not list these frames side by side.
    """
    file = path / column.file(number)
    expected = f"{rows} frames in {column.file(number)}"
    try:
        content = np.asarray(np.memmap(file, np.uint8, "r"))  # slicing numpy's memmap class is many times slower
    except (OSError, ValueError) as error:
        raise DamagedError(path, column.name, expected, f"a file that cannot be mapped ({error})") from error
    index_bytes = column.rows_per_file * 16
    trailer = bytes(content[-index_bytes - _CRC_BYTES :])
    encoded, crc = trailer[:-_CRC_BYTES], trailer[-_CRC_BYTES:]
    if len(encoded) != index_bytes or google_crc32c.value(encoded).to_bytes(_CRC_BYTES, "little") != crc:
        raise DamagedError(path, column.name, expected, f"{content.size} bytes that do not end in a valid shard index")
    index = np.frombuffer(encoded, "<u8").reshape(-1, 2)[:rows]
    wanted = np.stack([np.arange(rows) * column.row_bytes, np.full(rows, column.row_bytes)], 1)
    if not np.array_equal(index, wanted.astype("<u8")) or content.size < rows * column.row_bytes:
        raise DamagedError(path, column.name, expected, "an index that lists other frames")
    return content[: rows * column.row_bytes].reshape(rows, *column.shape)


def sharding_codec(frame: tuple[int, ...]) -> dict[str, Any]:
    """The zarr v3 codec whose files `encode_shard` writes."""
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, *frame],
            "codecs": [{"name": "bytes"}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        },
    }


def _check_codec(path: Path, column: Column) -> None:
    metadata = json.loads((path / column.name / "zarr.json").read_text())
    grid = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    if metadata["codecs"] != [sharding_codec(column.shape)] or grid != [column.rows_per_file, *column.shape]:
        raise DamagedError(
            path, column.name, f"uncompressed frames in shards of {column.rows_per_file}", "another zarr layout"
        )
