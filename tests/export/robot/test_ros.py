"""Against a real ROS 2 (rclpy on Fast DDS) in an environment of its own: `make ros`, then `make ros-test`.

Without that environment every test here is skipped by name. ROBO_RLFT_ROS names the environments, else `.venv-ros` and
`.venv-ros-jazzy` in the project's folder are taken.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds")

from robo_rlft.export.robot.bus_robot import RobotNode
from robo_rlft.export.robot.dds import Participant, Quality
from robo_rlft.export.robot.simulated import SimulatedRobot
from robo_rlft.rosmsg.cdr import Message, blank, decode, encode
from robo_rlft.rosmsg.definition import type_hash
from robo_rlft.rosmsg.known import FLOAT64_ARRAY, KNOWN

ROOT = Path(__file__).parents[3]
NAMED = os.environ.get("ROBO_RLFT_ROS", "").split(os.pathsep)
PLACES = [Path(p) for p in NAMED if p] or [ROOT / ".venv-ros", ROOT / ".venv-ros-jazzy"]


@pytest.fixture(params=PLACES, ids=lambda path: path.name)
def ros(request: pytest.FixtureRequest) -> Path:
    python = request.param / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"there is no ROS 2 at {request.param}: make ros")
    return python


@contextmanager
def process(python: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A program under ROS 2, with this package on its path."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = subprocess.Popen([str(python), *words], env=environment, text=True, **pipes)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.communicate()


def told(started: subprocess.Popen[str]) -> dict[str, Any]:
    assert started.stdout is not None
    for line in started.stdout:
        if line.startswith("{"):
            return json.loads(line)
    assert started.stderr is not None
    raise AssertionError(started.stderr.read())


def filled(kind: str, rng: np.random.Generator) -> Message:
    """A message whose every field says something."""
    message = blank(kind, KNOWN)
    for field in KNOWN[kind].fields:
        values = [_value(field.type, rng) for _ in range(max(field.size, 0) or 3)] if field.size is not None else []
        setattr(message, field.name, values if field.size is not None else _value(field.type, rng))
    return message


def _value(kind: str, rng: np.random.Generator) -> Any:
    simple = {"string": "naïve", "bool": True, "byte": 2, "int32": -7, "uint32": 5}
    if kind in simple:
        return simple[kind]
    return float(np.float32(rng.normal())) if kind.startswith("float") else filled(kind, rng)


def test_every_type_there_and_back_with_equal_content_and_hashes(ros: Path, domain_id: int) -> None:
    kinds, rng, got = list(KNOWN), np.random.default_rng(0), {}
    peer = str(Path(__file__).with_name("ros_peer.py"))
    with Participant(domain_id) as bus, process(ros, peer, "echo", "60", json.dumps(kinds)) as started:
        assert told(started) == {"ready": True}
        ready = time.monotonic()
        publishers = {}
        for i, kind in enumerate(kinds):
            publishers[kind] = bus.publisher(f"/there/n{i}", kind, Quality())
            bus.subscribe(f"/back/n{i}", kind, lambda m, _, kind=kind: got.__setitem__(kind, m), Quality())
        assert bus.wait_for(lambda: all(p.matched for p in publishers.values()), 5.0)
        assert time.monotonic() - ready < 5.0
        for kind in kinds:
            message = filled(kind, rng)
            deadline = time.monotonic() + 5.0
            while kind not in got and time.monotonic() < deadline:  # the way back may not be there yet
                publishers[kind].send(message)
                bus.wait_for(lambda kind=kind: kind in got, 0.3)
            seen = told(started)
            while seen["kind"] != kind:  # of a message that was sent again
                seen = told(started)
            ours = encode(kind, message, KNOWN)
            theirs = bytes.fromhex(seen["data"])
            # Between entries, and up to three bytes behind the last, Fast CDR leaves whatever was in memory.
            assert (len(theirs) - len(ours)) // 4 == 0
            assert encode(kind, decode(kind, theirs, KNOWN), KNOWN) == ours
            assert set(seen["hashes"]) == {type_hash(kind, KNOWN)}
            assert encode(kind, got[kind], KNOWN) == ours


@pytest.mark.slow
def test_the_lifecycle_node_drives_stops_and_begins_anew(ros: Path, domain_id: int, quadruped: Path) -> None:
    peer = str(Path(__file__).with_name("ros_peer.py"))
    module = ("-m", "robo_rlft.export.robot.ros_node", "--ros-args", "-p", f"bundle:={quadruped}")
    robot = SimulatedRobot("QuadrupedFlat")
    with Participant(domain_id) as bus, process(ros, *module), process(ros, peer, "drive", "/policy") as driver:
        node, commands = RobotNode(robot, bus), []
        bus.subscribe(node.topics.commands, FLOAT64_ARRAY, lambda m, _: commands.append(m.data.copy()), Quality())
        assert told(driver)["state"] == "inactive"
        assert told(driver)["state"] == "active"
        node.wait_for_controller(10.0)
        node.episode(1, lambda: len(commands) < 20)
        assert len({tuple(c) for c in commands}) > 5
        assert driver.stdin is not None
        _line(driver)
        assert told(driver) == {"service": "emergency_stop", "success": True, "message": "stopped until a reset"}
        bus.wait_for(lambda: False, 0.3)
        commands.clear()
        bus.wait_for(lambda: len(commands) > 5, 5.0)
        assert len(commands) > 5
        assert len({tuple(c) for c in commands}) == 1
        assert bus.wait_for(lambda: node.told_by_policy.get("flag emergency_stop", "0") != "0", 5.0)
        _line(driver)
        assert told(driver)["service"] == "reset"
        commands.clear()
        node.episode(2, lambda: len(commands) < 20)
        assert len({tuple(c) for c in commands}) > 5
        _line(driver)
        assert told(driver)["state"] == "inactive"
        bus.wait_for(lambda: False, 0.3)
        commands.clear()
        bus.wait_for(lambda: bool(commands), 0.5)
        assert commands == []
    robot.close()


def test_a_bundle_that_is_none_leaves_the_node_unconfigured(ros: Path, domain_id: int, tmp_path: Path) -> None:
    module = (
        "-m",
        "robo_rlft.export.robot.ros_node",
        "--ros-args",
        "-p",
        f"bundle:={tmp_path}",
        "-p",
        "autostart:=true",
    )
    with process(ros, *module) as started:
        assert started.stderr is not None
        line = next(line for line in started.stderr if "ERROR" in line)
        assert "is no controller bundle" in line
        assert started.poll() is None


def _line(started: subprocess.Popen[str]) -> None:
    assert started.stdin is not None
    started.stdin.write("\n")
    started.stdin.flush()
