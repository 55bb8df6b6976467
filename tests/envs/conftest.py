"""What steps the MuJoCo environments, for tests that must pass with either."""

from __future__ import annotations

import pytest

from robo_rlft.envs.mujoco import native


@pytest.fixture(params=["compiled", "batch"])
def stepper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "batch":
        monkeypatch.setattr(native, "load", lambda: "switched off")
    elif native.missing():
        pytest.skip(f"the compiled stepper is missing: {native.missing()}")
    return request.param
