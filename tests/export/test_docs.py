from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robo_rlft.envs import make
from robo_rlft.errors import UserError
from robo_rlft.export.client import PolicyProcess
from robo_rlft.export.runtime import Controller
from robo_rlft.spec import ArraySpec

from .conftest import reseal

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"


def test_the_example_of_the_page_drives_a_robot(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(exported.parent)
    commands: list[np.ndarray] = []
    robot: dict[str, Any] = {
        "read_sensors": lambda: np.full(3, len(commands), np.float32),
        "send_command": commands.append,
        "finished": lambda: len(commands) >= 9,
    }
    exec(example.replace("BUNDLE", exported.name), robot)
    assert len(commands) == 9, "three chunks, of which three of four actions are executed"
    assert all(c.shape == (2,) and np.isfinite(c).all() for c in commands)
    np.testing.assert_array_equal(np.stack(robot["history"]), [[8, 8, 8], [9, 9, 9]])


def _no_manifest(bundle: Path) -> None:
    (bundle / "controller.yaml").unlink()
    Controller(bundle)


def _other_version(bundle: Path) -> None:
    _edit(bundle, "version: 2", "version: 1")
    Controller(bundle)


def _edited(bundle: Path) -> None:
    _edit(bundle, "rate_hz: 50.0", "rate_hz: 60.0")
    Controller(bundle)


def _changed_model(bundle: Path) -> None:
    (bundle / "policy.onnx").write_bytes(b"other")
    Controller(bundle)


def _other_results(bundle: Path) -> None:
    golden = dict(Controller(bundle).golden)
    golden["action"] = golden["action"] + np.array([2.1e-3 * 8, 0], np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, **golden)
    reseal(bundle, "golden.npz", buffer.getvalue())
    Controller(bundle)


def _other_robot(bundle: Path) -> None:
    env = make("HalfCheetah", 1)
    mine = replace(env.robot, observation={"policy": ArraySpec((11,))})
    mine.check(env.robot, f"bundle {bundle}", "environment HalfCheetah")


def _nan(bundle: Path) -> None:
    Controller(bundle).act({"policy": np.full((1, 2, 3), np.nan)}, np.zeros((1, 4, 2)))


def _misspelt(bundle: Path) -> None:
    Controller(bundle).act({"polciy": np.zeros((1, 2, 3))}, np.zeros((1, 4, 2)))


def _killed(bundle: Path) -> None:
    with PolicyProcess(bundle) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.act({"policy": np.zeros((1, 2, 3))}, np.zeros((1, 4, 2)))


ROWS = re.findall(r"^\| .* \| `(.*)` \|$", PAGE.read_text(), re.MULTILINE)
CAUSES = (
    _no_manifest,
    _other_version,
    _edited,
    _changed_model,
    _other_results,
    _other_robot,
    _nan,
    _misspelt,
    _killed,
)


@pytest.mark.parametrize(("row", "cause"), list(zip(ROWS, CAUSES, strict=True)))
def test_the_refusals_of_the_page_are_those_of_the_code(row: str, cause: Callable[[Path], None], bundle: Path) -> None:
    pattern = re.escape(row.replace("slide_z", "x")).replace("…", ".*")
    with pytest.raises(UserError, match=f"^{pattern}$"):
        cause(bundle)


def _edit(bundle: Path, old: str, new: str) -> None:
    text = (bundle / "controller.yaml").read_text()
    assert text.count(old) == 1
    (bundle / "controller.yaml").write_text(text.replace(old, new))
