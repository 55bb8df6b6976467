"""Many files as one array: their beginnings mapped side by side into one run of addresses, without reading them."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

_MAP_FIXED = 0x10  # the same on Linux and macOS; Python's mmap does not name it
_LARGE_PAGE = 1 << 21
_FAILED = ctypes.c_void_p(-1).value
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


def map_side_by_side(files: Sequence[Path], sizes: Sequence[int]) -> UInt8[np.ndarray, " bytes"]:
    """The first `sizes[i]` bytes of each file, one after the other, read-only.

    Every size but the last must be a multiple of `mmap.PAGESIZE`, and no file may be shorter than its size.

    Raises:
        OSError: a file cannot be mapped.
    """
    total = sum(sizes)
    room = mmap.mmap(-1, total + _LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    reserved = np.frombuffer(room, np.uint8)  # keeps the addresses until the last array over them is gone
    first = -reserved.ctypes.data % _LARGE_PAGE  # there, the kernel can map files in large pages
    address = reserved.ctypes.data + first
    for file, size in zip(files, sizes, strict=True):
        with file.open("rb") as opened:
            flags = mmap.MAP_SHARED | _MAP_FIXED
            mapped = _LIBC.mmap(address, size, mmap.PROT_READ, flags, opened.fileno(), 0)
        if mapped in (None, _FAILED):
            raise OSError(ctypes.get_errno(), "cannot be mapped", str(file))
        address += size
    return reserved[first : first + total]
