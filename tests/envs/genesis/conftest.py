"""Scenes are expensive: tests borrow environments and give them back."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robo_rlft import envs

sys.path.append(str(Path(__file__).parents[3]))
from tests.envs.lending import Lender

KEPT = 3
"""A scene holds 0.1 to 0.7 GB."""


@pytest.fixture(scope="package")
def lend() -> Iterator[Callable[..., Any]]:
    if importlib.util.find_spec("genesis") is None:
        pytest.skip("extra genesis")
    lender = Lender(lambda task, num_envs, **settings: envs.make(f"genesis:{task}", num_envs, **settings), KEPT)
    yield lender
    lender.close()
