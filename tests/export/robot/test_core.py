"""Messages that lie: wrong names, NaN, old, of the future. None of them reaches the policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robo_rlft.export.robot.control import Mode, PythonRuntime
from robo_rlft.export.robot.core import PolicyCore
from robo_rlft.export.robot.messages import imu, twist
from robo_rlft.export.robot.simulated import Imu
from robo_rlft.export.robot.topics import joint_state
from robo_rlft.rosmsg.cdr import encode
from robo_rlft.rosmsg.known import DIAGNOSTICS, FLOAT64_ARRAY, KNOWN, TRAJECTORY
from robo_rlft.rosmsg.labels import array_entries, array_stamp, labelled_array

PERIOD = 20_000_000
LEVEL = Imu(np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(3), np.array([0.0, 0.0, 9.81]))


@pytest.fixture(scope="module")
def loaded(quadruped: Path) -> PolicyCore:
    runtime = PythonRuntime(quadruped)
    runtime.description = replace(runtime.description, timing=replace(runtime.description.timing, ramp_s=0.0))
    return PolicyCore(runtime.description, runtime)


@pytest.fixture
def core(loaded: PolicyCore) -> PolicyCore:
    loaded.reset()
    loaded.refused.clear()
    loaded.flags.clear()
    loaded.modes.clear()
    return loaded


def joints(core: PolicyCore, stamp: int, names: tuple[str, ...] = (), value: float = 0.0) -> Any:
    spec = core.description.joints
    assert spec is not None
    return joint_state(names or spec.names, spec.default + value, np.zeros(12), np.zeros(0), stamp)


def tell(core: PolicyCore, step: int) -> int:
    now = step * PERIOD
    core.on_imu(imu(LEVEL, now), now)
    core.on_joint_state(joints(core, now), now)
    return now


def test_a_tick_is_due_when_all_have_told_and_when_nobody_does(core: PolicyCore) -> None:
    core.tick(PERIOD)
    assert not core.due(2 * PERIOD)
    core.on_imu(imu(LEVEL, 2 * PERIOD), 2 * PERIOD)
    assert not core.due(2 * PERIOD)
    core.on_joint_state(joints(core, 2 * PERIOD), 2 * PERIOD)
    assert core.due(2 * PERIOD)
    core.tick(2 * PERIOD)
    assert not core.due(3 * PERIOD)
    assert core.due(4 * PERIOD)
    assert core.wait_s(3 * PERIOD) == pytest.approx(0.01)


def test_a_command_answers_its_observation_by_name_and_stamp(core: PolicyCore) -> None:
    now = tell(core, 3)
    out = core.tick(now + 5)
    assert out is not None
    assert list(array_entries(out.array)) == list(core.description.action.names)
    assert array_stamp(out.array) == array_stamp(out.done) == now
    assert out.trajectory is not None
    assert out.trajectory.joint_names == list(core.description.action.names)
    np.testing.assert_array_equal(out.trajectory.points[0].positions, out.array.data)
    np.testing.assert_allclose(core.description.action.target(out.done.data), out.array.data, atol=1e-12)
    encode(FLOAT64_ARRAY, out.array, KNOWN)
    encode(TRAJECTORY, out.trajectory, KNOWN)


def test_a_permuted_joint_state_changes_nothing_and_a_renamed_one_is_refused(core: PolicyCore) -> None:
    now = tell(core, 1)
    expected = core.tick(now)
    assert expected is not None
    core.reset()
    names = core.description.action.names
    straight = joints(core, now, value=0.0)
    core.on_imu(imu(LEVEL, now), now)
    core.on_joint_state(joint_state(names[::-1], straight.position[::-1], np.zeros(12), np.zeros(0), now), now)
    turned = core.tick(now)
    assert turned is not None
    np.testing.assert_array_equal(turned.array.data, expected.array.data)
    core.on_joint_state(joints(core, now + PERIOD, ("other", *names[1:])), now + PERIOD)
    assert core.refused["joint_states"] == 1
    assert "lacks 'FL_hip_joint'" in core.diagnostics(now).status[0].message


def _nan(core: PolicyCore, now: int) -> None:
    core.on_joint_state(joints(core, now, value=np.nan), now)


def _twice(core: PolicyCore, now: int) -> None:
    names = core.description.action.names
    core.on_joint_state(joints(core, now, (names[0], *names[:-1])), now)


def _short(core: PolicyCore, now: int) -> None:
    names = core.description.action.names
    core.on_joint_state(joint_state(names, np.zeros(11), np.zeros(12), np.zeros(0), now), now)


def _without_velocity(core: PolicyCore, now: int) -> None:
    core.on_joint_state(joint_state(core.description.action.names, np.zeros(12), np.zeros(0), np.zeros(0), now), now)


def _old(core: PolicyCore, now: int) -> None:
    core.on_joint_state(joints(core, 1), now)


def _future(core: PolicyCore, now: int) -> None:
    core.on_joint_state(joints(core, now + 10**9), now)


@pytest.mark.parametrize("lie", [_nan, _twice, _short, _without_velocity, _old, _future])
def test_a_lie_is_refused_as_a_whole(core: PolicyCore, lie: Callable[[PolicyCore, int], None]) -> None:
    now = tell(core, 1)
    before = core.tick(now)
    assert before is not None
    lie(core, 2 * PERIOD)
    core.on_imu(imu(LEVEL, 2 * PERIOD), 2 * PERIOD)
    assert core.refused["joint_states"] == 1
    assert not core.due(2 * PERIOD)
    # Nothing truthful comes: the robot is held, within a tick of the timeout.
    held = core.tick(now + round(core.description.timing.observation_timeout_s * 1e9) + 1)
    assert held is not None
    assert held.command.mode is Mode.HOLD


def test_an_imu_without_orientation_is_refused(core: PolicyCore) -> None:
    core.on_imu(imu(Imu(np.zeros(4), np.zeros(3), np.zeros(3)), PERIOD), PERIOD)
    core.on_imu(imu(Imu(np.array([0, 0, 0, np.nan]), np.zeros(3), np.zeros(3)), PERIOD), PERIOD)
    assert core.refused["imu"] == 2


def test_an_unlabelled_observation_is_refused(arm: Path) -> None:
    runtime = PythonRuntime(arm)
    core = PolicyCore(runtime.description, runtime)
    message = labelled_array(core.builder.told, np.zeros(21), PERIOD)
    message.layout.dim = []
    core.on_observation(message, PERIOD, PERIOD)
    assert core.refused["observation"] == 1
    core.on_observation(labelled_array(core.builder.told, np.zeros(21), PERIOD), 0, PERIOD)
    out = core.tick(PERIOD)
    assert out is not None
    assert out.trajectory is None


def test_nobody_steers_any_more(core: PolicyCore) -> None:
    core.on_command_velocity(twist((1.0, 0.5, -0.5)), PERIOD)
    core.on_command_velocity(twist((np.nan, 0.0, 0.0)), PERIOD)
    assert core.refused["command_velocity"] == 1
    for step, expected in ((1, [1.0, 0.5, -0.5]), (60, [0.0, 0.0, 0.0])):
        out = core.tick(tell(core, step))
        assert out is not None
        assert out.seen is not None
        assert out.seen.data[6:9].tolist() == expected


def test_topics_keep_no_order_and_a_stop_wins(core: PolicyCore) -> None:
    core.stop(sent_ns=5 * PERIOD)
    assert core.tick(PERIOD) is None  # stopped before the joints are known: nothing is sent
    core.reset(sent_ns=4 * PERIOD)
    out = core.tick(tell(core, 6))
    assert out is not None
    assert out.command.mode is Mode.STOP
    core.reset(sent_ns=7 * PERIOD)
    assert core.tick(tell(core, 6)) is None  # of before the reset
    out = core.tick(tell(core, 8))
    assert out is not None
    assert out.command.mode is Mode.RUN


def test_diagnostics_tell_modes_limits_and_refusals(core: PolicyCore) -> None:
    assert core.diagnostics(PERIOD).status[0].level == 1
    now = tell(core, 1)
    core.tick(now)
    core.sent(now + 3_000_000)
    message = core.diagnostics(now)
    values = {pair.key: pair.value for pair in message.status[0].values}
    assert (message.status[0].level, message.status[0].message) == (0, "RUN")
    assert values["ticks in mode RUN"] == "1"
    assert values["sensor to command, p50, ms"] == "3.000"
    core.stop(now)
    core.tick(now + PERIOD)
    stopped = core.diagnostics(now).status[0]
    assert (stopped.level, stopped.message) == (2, "STOP")
    encode(DIAGNOSTICS, message, KNOWN)
