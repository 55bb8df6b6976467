"""Reward terms by hand, and the same numbers with numpy, torch and jax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from robo_rlft.envs.legged import memory, rewards, tables
from robo_rlft.envs.legged.robots import G1, GO2, LeggedRobot
from robo_rlft.envs.legged.view import View, into_frame, joint_targets, projected_gravity, yaw

PARAMS = {
    **rewards.REWARD_PARAMS,
    "stand_height": 0.5,
    "default_joint_pos": (0.0, 1.0),
    "joint_low": (-1.0, 0.0),
    "joint_high": (1.0, 2.0),
    "deviation_joints": (0.0, 1.0),
    "action_scale": 0.25,
    "fall_tilt": 1.0,
    "fall_height": 0.5,
}
"""Of a robot with two joints and two feet."""
MOVING, STANDING = [0.6, -0.2, 0.5], [0.0, 0.0, 0.0]


def view(**changes: Any) -> View:
    """Two robots; the first is asked to move, the second to stand."""
    plain = {
        "lin_vel": [[0.5, 0.1, -0.2], [0.0, 0.0, 0.1]],
        "ang_vel": [[0.1, -0.3, 0.2], [0.0, 0.0, 0.0]],
        "gravity": [[0.1, 0.2, -0.97], [0.0, 0.0, -1.0]],
        "height": [0.4, 0.5],
        "joint_pos": [[0.95, 1.5], [0.1, 0.8]],
        "joint_vel": [[1.0, 2.0], [0.0, 0.0]],
        "joint_acc": [[10.0, -20.0], [0.0, 0.0]],
        "torque": [[3.0, -4.0], [0.0, 1.0]],
        "action": [[0.5, 0.0], [1.0, 1.0]],
        "previous_action": [[0.0, 1.0], [1.0, 1.0]],
        "command": [MOVING, STANDING],
        "next_command": [MOVING, STANDING],
        "phase": [0.2, 0.2],
        "contact": [[True, False], [True, True]],
        "air_time": [[0.4, 0.1], [0.3, 0.0]],
        "foot_speed": [[0.2, 5.0], [0.1, 0.3]],
        "undesired": [2.0, 0.0],
        "friction": [[1.0], [0.5]],
        "ground": [[], []],
    }
    return View(**{name: np.array(values) for name, values in {**plain, **changes}.items()})


SIGMA, AIR = rewards.REWARD_PARAMS["tracking_sigma"], rewards.REWARD_PARAMS["air_time_s"]
BY_HAND: list[tuple[Callable[..., Any], list[float]]] = [
    (rewards.track_velocity, [math.exp(-(0.1**2 + 0.3**2) / SIGMA), 1.0]),
    (rewards.track_yaw, [math.exp(-(0.3**2) / SIGMA), 1.0]),
    (rewards.alive, [1.0, 1.0]),
    (rewards.vertical_velocity, [0.04, 0.01]),
    (rewards.roll_pitch_rate, [0.1**2 + 0.3**2, 0.0]),
    (rewards.tilt, [0.05, 0.0]),
    (rewards.base_height, [0.01, 0.0]),
    (rewards.torque, [25.0, 1.0]),
    (rewards.joint_velocity, [5.0, 0.0]),
    (rewards.joint_acceleration, [500.0, 0.0]),
    (rewards.action_rate, [1.25, 0.0]),
    # Soft ranges are .9 of (-1, 1) and of (0, 2): the first joint is .05 beyond its own.
    (rewards.joint_limits, [0.05, 0.0]),
    # The first foot lands, the second is in the air; who is asked to stand is paid for no step.
    (rewards.feet_air_time, [0.4 - AIR, 0.0]),
    (rewards.single_stance, [1.0, 1.0]),
    # At a phase of .2 the first foot should stand, the second, half a turn on, swing.
    (rewards.gait_contact, [2.0, 0.0]),
    (rewards.feet_slide, [0.2, 0.4]),
    (rewards.undesired_contacts, [2.0, 0.0]),
    (rewards.stand_still, [0.0, 0.1 + 0.2]),
    (rewards.joint_deviation, [0.5, 0.2]),
]


@pytest.mark.parametrize(("term", "expected"), BY_HAND, ids=[term.__name__ for term, _ in BY_HAND])
def test_reward_terms_by_hand(term: Callable[..., Any], expected: list[float]) -> None:
    np.testing.assert_allclose(term(np, view(), PARAMS), expected, rtol=1e-12, atol=1e-12)


def test_every_term_is_checked_by_hand() -> None:
    used = {paid.fn for paid in (*tables.QUADRUPED_REWARDS, *tables.HUMANOID_REWARDS)}
    assert used <= {term for term, _ in BY_HAND}


def test_a_foot_on_the_ground_has_not_landed() -> None:
    still = view(air_time=np.zeros((2, 2)))
    assert rewards.feet_air_time(np, still, PARAMS).tolist() == [0.0, 0.0]


def test_fallen_is_tilted_or_low() -> None:
    tilted = [math.sin(1.1), 0.0, -math.cos(1.1)]
    cases = view(gravity=[[0.1, 0.2, -0.97], tilted], height=[0.4, 0.5])
    assert tables.fallen(np, cases, PARAMS).tolist() == [False, True]
    assert tables.fallen(np, view(height=[0.24, 0.26]), PARAMS).tolist() == [True, False]


@pytest.mark.parametrize("robot", [GO2, G1], ids=["quadruped", "humanoid"])
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_the_same_text_gives_the_same_numbers(robot: LeggedRobot, backend: str) -> None:
    xp = torch if backend == "torch" else pytest.importorskip("jax.numpy", reason="extra mjx")
    rng = np.random.default_rng(0)
    numbers = random_view(rng, len(robot.joints), len(robot.feet))
    there = View(**{n: xp.asarray(getattr(numbers, n)) for n in View.__dataclass_fields__})
    params = {**tables.task_params(robot), "deviation_joints": (1.0,) * len(robot.joints)}
    observed = (*tables.proprioception(robot), *tables.clock(), *tables.privileged(robot, 3))
    for term in (*tables.QUADRUPED_REWARDS, *tables.HUMANOID_REWARDS, *observed):
        left, right = term.fn(np, numbers, params), term.fn(xp, there, params)
        np.testing.assert_allclose(left, np.asarray(right), rtol=2e-4, atol=1e-5, err_msg=term.name)
    kept = {n: np.stack([v, v]) for n, v in memory.begin(rng, params, len(robot.joints), len(robot.feet)).items()}
    carried = {n: xp.asarray(v) for n, v in kept.items()}
    for _ in range(3):
        action = rng.standard_normal((2, len(robot.joints)))
        kept |= memory.carry(np, kept, numbers, action, params, 0.02)
        carried |= memory.carry(xp, carried, there, xp.asarray(action), params, 0.02)
    for name, values in kept.items():
        np.testing.assert_allclose(values, np.asarray(carried[name]), rtol=1e-5, atol=1e-6, err_msg=name)


def random_view(rng: np.random.Generator, joints: int, feet: int) -> View:
    vectors = {n: rng.standard_normal((2, 3)) for n in ("lin_vel", "ang_vel", "gravity", "command", "next_command")}
    by_joint = ("joint_pos", "joint_vel", "joint_acc", "torque", "action", "previous_action")
    return View(
        **vectors,
        **{n: rng.standard_normal((2, joints)) for n in by_joint},
        **{n: rng.uniform(size=2) for n in ("height", "phase", "undesired")},
        **{n: rng.uniform(size=(2, feet)) for n in ("air_time", "foot_speed")},
        contact=rng.uniform(size=(2, feet)) < 0.5,
        friction=rng.uniform(size=(2, 1)),
        ground=rng.uniform(size=(2, 3)),
    )


def test_frames_agree_with_mujoco() -> None:
    import mujoco

    rng = np.random.default_rng(1)
    quat, vector = rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    quat /= np.linalg.norm(quat, axis=1, keepdims=True)
    for i in range(5):
        inverse, rotated = np.empty(4), np.empty(3)
        mujoco.mju_negQuat(inverse, quat[i])
        mujoco.mju_rotVecQuat(rotated, vector[i], inverse)
        np.testing.assert_allclose(into_frame(np, quat, vector)[i], rotated)
        mujoco.mju_rotVecQuat(rotated, np.array([0.0, 0.0, -1.0]), inverse)
        np.testing.assert_allclose(projected_gravity(np, quat)[i], rotated)
    turned = np.array([[math.cos(0.4), 0.0, 0.0, math.sin(0.4)]])
    np.testing.assert_allclose(yaw(np, turned), [0.8])


def test_targets_are_the_default_pose_and_scaled_actions() -> None:
    np.testing.assert_allclose(joint_targets(np, np.array([[2.0, -4.0]]), PARAMS), [[0.5, 0.0]])


def test_commands_change_when_their_time_is_over_and_begin_again() -> None:
    params = {**memory.COMMAND_PARAMS, "command_s": 0.1}
    commands = np.arange(memory.SEGMENTS * 3.0).reshape(1, -1, 3)
    kept = {"commands": commands, "steps": np.array([0])}
    seen = [memory.command_of(np, {**kept, "steps": np.array([t])}, params, 0.02)[0, 0] for t in range(50)]
    assert seen[:5] == [0.0] * 5
    assert seen[5:10] == [3.0] * 5
    assert seen[40:45] == [0.0] * 5


def test_commands_stay_in_their_ranges_and_some_ask_to_stand() -> None:
    params = {**memory.COMMAND_PARAMS, "stand_share": 0.25}
    drawn = np.concatenate([memory.draw_commands(np.random.default_rng(i), params) for i in range(200)])
    for entry, name in enumerate(("command_vx", "command_vy", "command_yaw")):
        low, high = params[name]
        assert low <= drawn[:, entry].min() < 0.8 * low
        assert 0.8 * high < drawn[:, entry].max() <= high
    assert np.mean((drawn == 0).all(1)) == pytest.approx(0.25, abs=0.05)


def test_memory_counts_air_time_and_errors() -> None:
    before = view()
    kept = {
        "steps": np.array([4, 0]),
        "action": before.action,
        "velocity_error": np.array([1.0, 0.0]),
        "yaw_error": np.array([2.0, 0.0]),
    }
    after = memory.carry(np, kept, before, np.ones((2, 2)), PARAMS, 0.02)
    assert after["steps"].tolist() == [5, 1]
    np.testing.assert_allclose(after["air_time"], [[0.0, 0.12], [0.0, 0.0]])
    error = math.hypot(0.1, 0.3)
    # Before the first step there is no error to count.
    np.testing.assert_allclose(after["velocity_error"], [1.0 + error, 0.0])
    np.testing.assert_allclose(after["yaw_error"], [2.3, 0.0])
    mean, turn = memory.mean_errors(np, {**kept, "velocity_error": np.array([1.0, 0.0])}, before)
    np.testing.assert_allclose(mean, [(1.0 + error) / 4, 0.0])
    np.testing.assert_allclose(turn, [2.3 / 4, 0.0])
