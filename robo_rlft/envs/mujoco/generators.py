"""One random generator per environment, the same as Gymnasium's, and their states as rows of integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt64

_WORD = (1 << 64) - 1


def spawn(seed: int | None, num: int) -> list[np.random.Generator]:
    """A generator per environment: environment i gets seed + i, or entropy of its own when seed is None."""
    return [np.random.default_rng(None if seed is None else seed + i) for i in range(num)]


def reseed(generators: list[np.random.Generator], seed: int | Sequence[int], ids: Integer[np.ndarray, " row"]) -> None:
    """Seed environments `ids`: environment i gets seed + i, or the seeds in order when a sequence is given."""
    seeds = [seed + int(i) for i in ids] if isinstance(seed, int | np.integer) else list(seed)
    for i, s in zip(ids, seeds, strict=True):
        generators[i] = np.random.default_rng(int(s))


def pack(generators: Sequence[np.random.Generator]) -> UInt64[np.ndarray, "row 6"]:
    """PCG64 states as rows: state and increment in two words each, then the buffered half word."""
    rows = np.empty((len(generators), 6), np.uint64)
    for row, generator in zip(rows, generators, strict=True):
        full = generator.bit_generator.state
        state, inc = full["state"]["state"], full["state"]["inc"]
        row[:] = (state >> 64, state & _WORD, inc >> 64, inc & _WORD, full["has_uint32"], full["uinteger"])
    return rows


def unpack(
    rows: UInt64[np.ndarray, "row 6"], generators: list[np.random.Generator], ids: Integer[np.ndarray, " row"]
) -> None:
    """Put packed states into the generators of environments `ids`."""
    for row, i in zip(rows, ids, strict=True):
        high, low, inc_high, inc_low, has_uint32, uinteger = (int(v) for v in row)
        generators[i].bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
            "has_uint32": has_uint32,
            "uinteger": uinteger,
        }
