"""NumPy's global random generator, lent to a package that draws from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Inside, `np.random` draws from this seed; outside, it goes on as if nothing had been drawn."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
