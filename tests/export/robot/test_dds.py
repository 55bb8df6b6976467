"""The closed loop over DDS: two participants, two processes, recordings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds")
pytest.importorskip("mcap")

from robo_rlft.data import Dataset
from robo_rlft.data.convert import convert
from robo_rlft.data.validate import validate
from robo_rlft.errors import ConfigError, RunError
from robo_rlft.export.robot.bus_robot import RobotNode
from robo_rlft.export.robot.control import Mode, PythonRuntime
from robo_rlft.export.robot.core import PolicyCore
from robo_rlft.export.robot.dds import LATCHED, SENSOR, Participant
from robo_rlft.export.robot.deploy import Settings, deploy
from robo_rlft.export.robot.faults import Faults
from robo_rlft.export.robot.node import PolicyNode
from robo_rlft.export.robot.simulated import SimulatedRobot
from robo_rlft.rosmsg.cdr import blank
from robo_rlft.rosmsg.known import BOOL, FLOAT64_ARRAY, JOINT_STATE, KNOWN
from robo_rlft.rosmsg.labels import array_entries, labelled_array


@pytest.mark.parametrize("kind", KNOWN)
def test_every_type_travels(kind: str, domain_id: int) -> None:
    got: list[Any] = []
    with Participant(domain_id) as one, Participant(domain_id) as other:
        other.subscribe("/thing", kind, lambda message, _: got.append(message))
        publisher = one.publisher("/thing", kind)
        assert one.wait_for(lambda: publisher.matched == 1, 5.0)
        message = blank(kind, KNOWN)
        publisher.send(message)
        assert other.wait_for(lambda: bool(got), 5.0)
    assert repr(got[0]) == repr(message)


def test_a_latched_message_waits_for_a_late_reader(domain_id: int) -> None:
    got: list[Any] = []
    with Participant(domain_id) as one, Participant(domain_id) as other:
        message = blank(BOOL, KNOWN)
        message.data = True
        one.publisher("/stop", BOOL, LATCHED).send(message)
        other.subscribe("/stop", BOOL, lambda m, _: got.append(m.data), LATCHED)
        assert other.wait_for(lambda: bool(got), 5.0)
    assert got == [True]


def test_names_and_domains_that_ros_does_not_have_are_refused(domain_id: int) -> None:
    with Participant(domain_id) as bus, pytest.raises(ConfigError, match="absolute name"):
        bus.publisher("joint_states", JOINT_STATE)
    with pytest.raises(ConfigError, match="0 to 232"):
        Participant(233)
    with pytest.raises(ConfigError, match="discovery range"):
        Participant(domain_id, "MOON")


def _loop(bundle: Path, env_id: str, domain_id: int, seed: int, steps: int) -> tuple[np.ndarray, PolicyCore]:
    """Commands of an episode over DDS, the robot in step with the node; both in this process, taking turns."""
    runtime = PythonRuntime(bundle)
    core = PolicyCore(runtime.description, runtime)
    commands: list[np.ndarray] = []
    with Participant(domain_id) as here, Participant(domain_id) as there:
        robot = SimulatedRobot(env_id)
        node, policy = RobotNode(robot, here, in_step=True), PolicyNode(core, there)
        bus_spin = here.spin

        def spin(timeout_s: float) -> int:
            policy.once()
            return bus_spin(min(timeout_s, 0.001))

        here.spin = spin  # pyright: ignore[reportAttributeAccessIssue]
        node.wait_for_controller(5.0)
        step = robot.step

        def noted(command: Any) -> None:
            commands.append(np.array([command[name] for name in robot.commands]))
            step(command)

        robot.step = noted  # pyright: ignore[reportAttributeAccessIssue]
        episode = node.episode(seed, lambda: len(commands) < steps)
        robot.close()
    assert episode.late_steps == 0
    assert len(episode.round_trip_s) == episode.steps
    return np.stack(commands), core


@pytest.mark.parametrize(("env_id", "fixture"), [("QuadrupedFlat", "quadruped"), ("ArmPegInsert", "arm")])
def test_over_the_bus_a_policy_acts_as_within_one_process(
    env_id: str, fixture: str, domain_id: int, request: pytest.FixtureRequest
) -> None:
    bundle: Path = request.getfixturevalue(fixture)
    commands, core = _loop(bundle, env_id, domain_id, seed=5, steps=30)
    assert core.modes[Mode.RUN] >= len(commands) > 5, (core.modes, core.report(), core._last_refusal)
    np.testing.assert_array_equal(commands, _directly(bundle, env_id, 5, len(commands)))


def _directly(bundle: Path, env_id: str, seed: int, steps: int) -> np.ndarray:
    """The same episode without any message: rows from the environment's own numbers."""
    runtime, robot = PythonRuntime(bundle), SimulatedRobot(env_id)
    core = PolicyCore(runtime.description, runtime)
    robot.reset(seed)
    rows, readings = [], core._readings
    for step in range(1, steps + 1):
        sensors, now = robot.sensors(), step * 20_000_000
        readings.position = dict(zip(robot.joints, sensors.position, strict=True))
        readings.velocity = dict(zip(robot.joints, sensors.velocity, strict=True))
        readings.told = dict(zip(robot.told, sensors.told, strict=True))
        readings.action = tuple(runtime.last_action)
        if sensors.imu is not None and sensors.steering is not None:
            from robo_rlft.export.robot.observation import gravity_of

            readings.gravity = tuple(gravity_of(*sensors.imu.orientation))
            readings.ang_vel, readings.command = tuple(sensors.imu.angular_velocity), tuple(sensors.steering)
            runtime.joint_state(now, sensors.position, sensors.velocity)
        runtime.observe(now, core.builder.rows(readings))
        rows.append(runtime.tick(now).target)
        robot.step(dict(zip(robot.commands, rows[-1], strict=True)))
    robot.close()
    return np.stack(rows)


def test_a_robot_refuses_commands_it_cannot_match(domain_id: int) -> None:
    with Participant(domain_id) as here, Participant(domain_id) as there:
        robot = SimulatedRobot("ArmPegInsert")
        node = RobotNode(robot, here)
        publisher = there.publisher(node.topics.commands, FLOAT64_ARRAY)
        assert there.wait_for(lambda: publisher.matched == 1, 5.0)
        wrong = labelled_array(("dx", "dy", "dz", "drx", "dry", "yaw"), np.zeros(6), 1)
        nan = labelled_array(robot.commands, np.full(6, np.nan), 1)
        bare = labelled_array(robot.commands, np.zeros(6), 1)
        bare.layout.dim = []
        for message in (wrong, nan, bare):
            before = sum(node.refused.values())
            publisher.send(message)
            assert here.wait_for(lambda n=before: sum(node.refused.values()) > n, 5.0)
        robot.close()
    assert node.commands.sent == 0


def test_a_robot_without_a_controller_says_so(domain_id: int) -> None:
    with Participant(domain_id) as bus:
        robot = SimulatedRobot("ArmPegInsert")
        with pytest.raises(RunError, match="no controller reads /joint_states"):
            RobotNode(robot, bus).wait_for_controller(0.2)
        robot.close()


def test_deploy_with_two_processes_faults_and_a_recording_that_comes_back(
    arm: Path, tmp_path: Path, domain_id: int
) -> None:
    tape = tmp_path / "run.mcap"
    faults = Faults(latency_s=0.002, drop=0.05, noise=1.0)
    record = deploy(arm, Settings(episodes=2, seconds=20.0, faults=faults, record=tape, json=tmp_path / "run.json"))
    assert [e["seed"] for e in record["episodes"]] == [1_000_000, 1_000_001]
    assert record["faults"]["sensor messages lost"] > 0
    assert record["round_trip"]["p50_us"] > 4000  # 2 ms each way
    assert (tmp_path / "run.json").is_file()
    report = convert(tape, tmp_path / "ours", policy_keys=["/policy/observation"], env_id="ArmPegInsert")
    assert validate(tmp_path / "ours").findings == ()
    dataset = Dataset.open(tmp_path / "ours")
    assert report.num_episodes == 2
    assert dataset.episode(0).action.shape[1] == 6
    assert np.abs(dataset.episode(0).action).max() <= 1.0 + 1e-6
    assert dataset.episode(0).observation["policy"].shape[1] == 21


def test_the_recording_is_read_by_an_independent_reader(domain_id: int, tmp_path: Path) -> None:
    highlevel = pytest.importorskip("rosbags.highlevel")
    from robo_rlft.rosmsg.mcap_file import Recorder, read_mcap

    path, values = tmp_path / "x.mcap", [1.5, -2.0]
    with Recorder(path) as recorder:
        for k in range(5):
            recorder.write("/a", FLOAT64_ARRAY, labelled_array(("x", "y"), values, k), 100 + k)
    with highlevel.AnyReader([path]) as reader:
        found = [(t, reader.deserialize(raw, c.msgtype)) for c, t, raw in reader.messages()]
    assert [t for t, _ in found] == [100, 101, 102, 103, 104]
    assert found[0][1].data.tolist() == values
    assert [array_entries(r.message) for r in read_mcap(path)] == [{"x": 1.5, "y": -2.0}] * 5


def test_a_stop_over_the_bus_reaches_the_process_and_holds(quadruped: Path, domain_id: int) -> None:
    """The node as a program; it imports no torch."""
    command = [sys.executable, "-X", "importtime", "-m", "robo_rlft.export.robot.node", str(quadruped)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ), text=True)
    robot = SimulatedRobot("QuadrupedFlat")
    try:
        with Participant(domain_id) as bus:
            node, got = RobotNode(robot, bus), []
            bus.subscribe(node.topics.commands, FLOAT64_ARRAY, lambda m, _: got.append(m.data.copy()), SENSOR)
            node.wait_for_controller(30.0)
            stop = bus.publisher(node.topics.stop, BOOL, LATCHED)
            node.episode(1, lambda: len(got) < 10)
            message = blank(BOOL, KNOWN)
            message.data = True
            stop.send(message)
            assert bus.wait_for(lambda: stop.matched >= 1, 5.0)
            _spin(bus, 0.2)
            got.clear()
            _spin(bus, 0.5)
            assert len(got) > 5
            assert len({tuple(row) for row in got}) == 1
            process.terminate()
            assert bus.wait_for(lambda: node.told_by_policy.get("flag emergency_stop", "0") != "0", 5.0)
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=10)
        robot.close()
    imported = {line.rpartition("|")[2].strip() for line in errors.splitlines() if line.startswith("import time:")}
    assert "cyclonedds" in imported
    assert not imported & {"torch", "mujoco", "gymnasium", "zarr"}


def _spin(bus: Participant, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        bus.spin(0.02)
