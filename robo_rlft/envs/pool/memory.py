"""Arrays that the main process and its workers both see: shared memory, or plain arrays where there are no workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from robo_rlft.errors import UserError

_ALIGNMENT = 64


@dataclass(frozen=True)
class Block:
    """One array.

    Attributes:
        shape: with the environments first.
        dtype: numpy name.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


Layout = Mapping[str, Block]


class Arena:
    """Arrays by name, zero at first.

    Args:
        layout: which arrays.
        shared: in shared memory, for worker processes.
    """

    def __init__(self, layout: Layout, shared: bool) -> None:
        self.layout = dict(layout)
        size = sum(_padded(block.size) for block in self.layout.values())
        self._segment = _created(size) if shared else None
        self.arrays = _views(self.layout, _memory(self._segment) if self._segment else memoryview(bytearray(size)))

    @property
    def name(self) -> str:
        """What `Attached` needs; empty when not shared."""
        return self._segment.name if self._segment else ""

    def close(self) -> None:
        """Give the memory back; the arrays must not be used again."""
        self.arrays = {}
        if self._segment:
            self._segment.close()
            self._segment.unlink()
            self._segment = None


class Attached:
    """An arena of another process."""

    def __init__(self, name: str, layout: Layout) -> None:
        self._segment = SharedMemory(name)
        self.arrays = _views(layout, _memory(self._segment))

    def close(self) -> None:
        """Let go of the memory, which its owner frees."""
        self.arrays = {}
        self._segment.close()


def _created(size: int) -> SharedMemory:
    try:
        return SharedMemory(create=True, size=max(size, 1))
    except OSError as error:
        raise UserError(
            f"cannot share {size / 2**20:.0f} MiB between processes ({error.strerror}): use fewer environments or "
            "shorter chunks, or give the machine (container: --shm-size) more shared memory"
        ) from error


def _memory(segment: SharedMemory) -> memoryview:
    assert segment.buf is not None, "the segment is open"
    return segment.buf


def _views(layout: Layout, buffer: memoryview) -> dict[str, np.ndarray]:
    views, start = {}, 0
    for name, block in layout.items():
        count = int(np.prod(block.shape))
        views[name] = np.frombuffer(buffer, block.dtype, count, start).reshape(block.shape)
        start += _padded(block.size)
    return views


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
