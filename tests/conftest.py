"""What every test shares: torch's process-wide settings are as they were after each one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _torch_settings_do_not_leak() -> Iterator[None]:
    """The verbs choose threads and matmul precision for their process, which here is that of the next test too."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(1)


@pytest.fixture
def opengl() -> None:
    """Skips where this machine cannot render at all; whatever else fails is a failure."""
    from robo_rlft.envs.mujoco.render import open_gl
    from robo_rlft.errors import UserError

    try:
        open_gl(8, 8).free()
    except UserError as error:
        pytest.skip(str(error))
