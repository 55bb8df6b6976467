from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from .conftest import MarkedBackend, marked, serving, url_of

PAGE = Path(__file__).parents[3] / "docs" / "deploy" / "server.md"


def test_the_example_of_the_page_drives_a_robot(exported: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    commands: list[np.ndarray] = []
    holds: list[None] = []
    robot: dict[str, Any] = {
        "read_sensors": lambda: marked(len(commands) + 1)["policy"],
        "send_command": commands.append,
        "hold": lambda: holds.append(None),
        "finished": lambda: len(commands) >= 20 or len(holds) > 100,
    }
    with serving(MarkedBackend(exported, seconds=0.01)) as server:
        exec(example.replace("ws://localhost:8000", url_of(server)), robot)
    assert len(commands) == 20
    assert holds, "before the first chunk there is none to play"
    assert {command.shape for command in commands} == {(2,)}
    assert [float(c[0]) for c in commands] == sorted(float(c[0]) for c in commands), "ever newer observations"
