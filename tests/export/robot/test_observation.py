"""Terms by name against the environment's own observation, and by hand."""

from __future__ import annotations

import itertools
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rlft.export.robot.control import PythonRuntime
from robo_rlft.export.robot.core import PolicyCore
from robo_rlft.export.robot.description import Action, Description, Term, Timing, read_description
from robo_rlft.export.robot.messages import imu, twist
from robo_rlft.export.robot.observation import ObservationBuilder, Readings, Source, gravity_of
from robo_rlft.export.robot.simulated import SimulatedRobot
from robo_rlft.export.robot.topics import joint_state
from robo_rlft.rosmsg.labels import labelled_array


def described(*terms: Term) -> Description:
    ones = np.ones(1)
    action = Action(("a",), "normalised", ones, 0 * ones, -ones, ones)
    return Description("Toy", 10.0, action, None, {"policy": terms}, Timing(0.1, 0.1, 0.0, 1.0))


def term(name: str, names: tuple[str, ...], **facts: object) -> Term:
    width = len(names)
    return Term(name, names, **{"scale": np.ones(width), "offset": np.zeros(width), **facts})  # pyright: ignore


@pytest.mark.parametrize("seed", range(3))
def test_a_quadrupeds_topics_make_the_observation_it_was_trained_on(quadruped: Path, seed: int) -> None:
    runtime = PythonRuntime(quadruped)
    core, robot = PolicyCore(runtime.description, runtime), SimulatedRobot("QuadrupedFlat")
    rng = np.random.default_rng(seed)
    robot.reset(seed)
    for step in range(1, 20):
        sensors, now = robot.sensors(), step * 10**9
        assert sensors.imu is not None
        assert sensors.steering is not None
        core.on_imu(imu(sensors.imu, now), now)
        core.on_command_velocity(twist(sensors.steering), now)
        # A robot may tell its joints in any order.
        order = rng.permutation(len(robot.joints))
        names = [robot.joints[i] for i in order]
        state = joint_state(names, sensors.position[order], sensors.velocity[order], sensors.effort[order], now)
        core.on_joint_state(state, now)
        out = core.tick(now)
        assert out is not None
        assert out.seen is not None
        spec = robot.spec.observation["policy"]
        expected = robot.observed["policy"].copy()
        np.testing.assert_allclose(out.seen.data[:33], expected[:33], atol=2e-6)
        # The last action is the policy's, which limits did not change only where it was within them.
        assert out.seen.layout.dim[0].label == ",".join(spec.names)
        robot.step(dict(zip(robot.commands, out.array.data, strict=True)))
    robot.close()


def test_an_arms_entries_are_told(arm: Path) -> None:
    description = read_description(arm)
    builder, robot = ObservationBuilder(description), SimulatedRobot("ArmPegInsert")
    robot.reset(3)
    assert builder.sources == {Source.ARRAY}
    told = dict(zip(robot.told, robot.sensors().told, strict=True))
    rows = builder.rows(Readings(told=told))
    np.testing.assert_array_equal(rows["policy"], robot.observed["policy"])
    robot.close()


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_gravity_against_the_engines_rotation(q: list[float]) -> None:
    unit = np.array(q) / np.linalg.norm(q)
    inverse, expected = np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(inverse, unit)
    mujoco.mju_rotVecQuat(expected, np.array([0.0, 0.0, -1.0]), inverse)
    w, x, y, z = unit
    np.testing.assert_allclose(gravity_of(x, y, z, w), expected, atol=1e-12)


def test_an_orientation_nobody_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="no quaternion"):
        gravity_of(0.0, 0.0, 0.0, 0.0)


def test_scale_offset_clip_and_history_by_hand() -> None:
    facts = {"scale": np.array([2.0, 0.5]), "offset": np.array([1.0, -1.0]), "clip": (-3.0, 3.0), "history": 3}
    builder = ObservationBuilder(described(term("lead", ("x", "y"), **facts), term("told", ("z",))))
    assert builder.names == ("x@-2", "y@-2", "x@-1", "y@-1", "x", "y", "z")
    rows = [builder.rows(Readings(told={"x": x, "y": 1.0, "z": 7.0}))["policy"].tolist() for x in (0.0, 1.0, 9.0)]
    assert rows[0] == [-2.0, 1.0] * 3 + [7.0]
    assert rows[1] == [-2.0, 1.0, -2.0, 1.0, 0.0, 1.0, 7.0]
    assert rows[2] == [-2.0, 1.0, 0.0, 1.0, 3.0, 1.0, 7.0]


def test_a_missing_entry_leaves_no_history_ahead() -> None:
    builder = ObservationBuilder(described(term("lead", ("x",), history=2), term("told", ("z",))))
    builder.rows(Readings(told={"x": 1.0, "z": 0.0}))
    with pytest.raises(KeyError, match="z"):
        builder.rows(Readings(told={"x": 2.0}))
    assert builder.rows(Readings(told={"x": 3.0, "z": 0.0}))["policy"].tolist() == [1.0, 3.0, 0.0]


@pytest.mark.parametrize("order", list(itertools.permutations(["a", "b", "c"])))
def test_joints_are_taken_by_name(order: tuple[str, ...]) -> None:
    builder = ObservationBuilder(described(term("joint_pos", ("1", "2"), joints=("c", "a"))))
    position = {name: float(ord(name)) for name in order}
    assert builder.rows(Readings(position=position))["policy"].tolist() == [99.0, 97.0]


def test_the_label_of_what_the_policy_saw_can_be_read_back(arm: Path) -> None:
    names = ObservationBuilder(read_description(arm)).names
    assert len(set(names)) == len(names) == 21
    assert labelled_array(names, np.zeros(21), 1).layout.dim[0].label.split(",") == list(names)
