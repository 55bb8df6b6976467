"""Images on disk: uncompressed frames, one per inner chunk of a zarr v3 shard, read through memory maps.

A shard file is `frame 0 | frame 1 | ... | index | crc32c`. The index has one (offset, size) pair of little-endian
uint64 per frame the shard can hold, all ones where there is none. Because frames lie side by side, a file is
both a valid zarr shard and an array that can be mapped, so that a batch costs one memcpy per window. Files hold so many
frames that those end at a page (where the frame's size allows): then all files can be mapped as one array.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from jaxtyping import Int64, UInt8

from robo_rlft.data.layout import Column, DamagedError
from robo_rlft.data.mapping import map_side_by_side

_EMPTY = np.uint64(2**64 - 1)
_CRC_BYTES = 4


class Frames:
    """All images of one camera, [rows, height, width, 3] uint8, mapped from disk.

    Args:
        path: the data set.
        column: the image array.
        rows: committed rows.

    Raises:
        DamagedError: a file is missing, cut off or altered in its index, or the frames are stored compressed.
    """

    def __init__(self, path: Path, column: Column, rows: int) -> None:
        if rows:
            _check_codec(path, column)
        size = column.rows_per_file
        counts = [min(size, rows - first) for first in range(0, rows, size)]
        self._shards = [decode_shard(path, column, i, count) for i, count in enumerate(counts)]
        self._size = size
        self.shape = (rows, *column.shape)
        self._whole = self._shards[0] if len(self._shards) == 1 else None
        if len(self._shards) > 1 and size * column.row_bytes % mmap.PAGESIZE == 0:
            files = [path / column.file(i) for i in range(len(counts))]
            flat = map_side_by_side(files, [count * column.row_bytes for count in counts])
            self._whole = flat.reshape(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def gather(
        self, rows: Int64[np.ndarray, " row"], out: np.ndarray | None = None
    ) -> UInt8[np.ndarray, "row h w rgb"]:
        """A copy of some frames that exist, into `out` if it is given."""
        copy = np.empty((len(rows), *self.shape[1:]), np.uint8) if out is None else out
        if self._whole is None:
            self._gather_from_shards(rows, copy)
        else:
            np.take(self._whole, rows, axis=0, out=copy, mode="clip")  # other modes go through a second copy
        return copy

    def _gather_from_shards(self, rows: np.ndarray, out: np.ndarray) -> None:
        shard, local = np.divmod(rows, self._size)
        for place, (number, first) in enumerate(zip(shard.tolist(), local.tolist(), strict=True)):
            out[place] = self._shards[number][first]

    def __getitem__(self, rows: slice) -> UInt8[np.ndarray, "rows height width rgb"]:
        """A copy of consecutive frames."""
        return self.gather(np.arange(*rows.indices(len(self)), dtype=np.int64))


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
