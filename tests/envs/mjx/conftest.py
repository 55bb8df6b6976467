"""Makes the toy tasks importable; every environment compiles programs of its own, so tests borrow them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[3]))
from tests.envs.lending import Lender

KEPT = 4


@pytest.fixture(scope="package")
def lend_toy() -> Iterator[Callable[..., Any]]:
    """Carts, by their number."""
    from mjx_toys import CART_TASK

    from robo_rlft.envs.mjx.engine import MjxEnv

    lender = Lender(lambda num_envs: MjxEnv(CART_TASK, num_envs, threads=1), KEPT)
    yield lender
    lender.close()


@pytest.fixture(scope="package")
def lend() -> Iterator[Callable[..., Any]]:
    """Environments by their name and number."""
    from robo_rlft import envs

    lender = Lender(lambda name, num_envs: envs.make(name, num_envs, threads=1), KEPT)
    yield lender
    lender.close()


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> Iterator[None]:
    """What a module compiled takes gigabytes."""
    yield
    if importlib.util.find_spec("jax") is not None:
        import jax

        jax.clear_caches()
