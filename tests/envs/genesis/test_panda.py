"""The Panda: kinematics against known answers, its terms by hand, and experts that succeed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from robo_rlft.envs import experts
from robo_rlft.envs.genesis.kinematics import hinge_jacobian, joint_step, product, rotation_vector, third_axis
from robo_rlft.envs.genesis.tasks import panda
from robo_rlft.envs.mujoco.task import State

ARM = panda.ARM


def about(axis: int, angle: float) -> np.ndarray:
    quat = np.zeros((1, 4))
    quat[0, 0], quat[0, 1 + axis] = math.cos(angle / 2), math.sin(angle / 2)
    return quat


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("angle", [-2.5, -0.3, 0.0, 1e-9, 0.7, 3.0])
def test_rotation_vector_undoes_axis_and_angle(axis: int, angle: float) -> None:
    expected = np.eye(3)[[axis]] * angle
    for xp, quat in ((np, about(axis, angle)), (torch, torch.from_numpy(about(axis, angle)))):
        np.testing.assert_allclose(rotation_vector(xp, quat), expected, atol=1e-12)
        np.testing.assert_allclose(rotation_vector(xp, -quat), expected, atol=1e-12)


def test_quarter_turns_compose() -> None:
    both = product(np, about(2, math.pi / 2), about(0, math.pi / 2))
    # First about x, which takes z to -y, then about z, which takes -y to x.
    np.testing.assert_allclose(third_axis(np, both), [[1.0, 0.0, 0.0]], atol=1e-12)


def test_a_planar_arm_has_the_textbook_jacobian() -> None:
    """Two links of 1 m along x, hinges about z at 0 and 1 m: the tip at 2 m moves with 2 and 1 m per rad along y."""
    anchors, axes = np.array([[[0.0, 0, 0], [1.0, 0, 0]]]), np.array([[[0.0, 0, 1], [0.0, 0, 1]]])
    jacobian = hinge_jacobian(np, anchors, axes, np.array([[2.0, 0, 0]]))
    np.testing.assert_allclose(jacobian[0], [[0, 0], [2, 1], [0, 0], [0, 0], [0, 0], [1, 1]])


def test_joint_steps_move_the_tool_and_leave_it_for_the_posture() -> None:
    rng = np.random.default_rng(0)
    jacobian, motion, posture = rng.normal(size=(3, 6, 7)), rng.normal(size=(3, 6)), rng.normal(size=(3, 7))
    step = joint_step(np, jacobian, motion, posture, damping=1e-6)
    np.testing.assert_allclose((jacobian @ step[:, :, None])[:, :, 0], motion, atol=1e-6)
    plain = joint_step(np, jacobian, motion, np.zeros((3, 7)), damping=1e-6)
    assert (np.linalg.norm(step - posture, axis=1) < np.linalg.norm(plain - posture, axis=1)).all()


def test_home_points_straight_down() -> None:
    np.testing.assert_allclose(panda.forward(np.array(panda.HOME)), [0.45, 0.0, 0.30, 0.0, 0.0, 0.0], atol=1e-4)


def test_published_kinematics_are_those_of_the_simulated_arm(lend: Callable[..., Any]) -> None:
    """Tool poses of random joints by Franka's table and by Genesis; its Jacobian is the table's derivative."""
    env = lend("PandaLift", 4, start_range=0.4)
    env.reset(seed=0)
    joints = env.world.fields["robot.qpos"][:, :ARM].astype(float)
    seen = panda.tool(np, env.world.fields, env.params)
    expected = np.array([panda.forward(row) for row in joints])
    np.testing.assert_allclose(seen["actuator_length"][:, :6], expected, atol=2e-5)
    step = 1e-6
    for joint in range(ARM):
        ahead = np.array([panda.forward(row + step * np.eye(ARM)[joint]) for row in joints])
        moved = (ahead - expected)[:, :3] / step
        np.testing.assert_allclose(seen["jacobian"][:, :3, joint], moved, atol=1e-3)
    env.close()


def test_the_tool_goes_where_it_is_sent_and_stays_level(lend: Callable[..., Any]) -> None:
    env = lend("PandaLift", 3)
    start = env.reset(seed=0)[0]["policy"][:, :6].clone()
    action = torch.zeros(3, 7)
    action[:, 0], action[:, 6] = 0.5, 1.0
    for _ in range(8):
        env.step(action)
    action[:, 0] = 0.0
    seen = [env.step(action)[0]["policy"] for _ in range(12)]
    moved = seen[-1][:, :6] - start
    np.testing.assert_allclose(moved[:, 0], 8 * 0.5 * env.params["step_m"], atol=0.004)
    np.testing.assert_allclose(moved[:, 1:3], 0.0, atol=0.004)
    np.testing.assert_allclose(moved[:, 3:], 0.0, atol=0.01)
    env.close()


def state(tool: tuple[float, ...], cube: tuple[float, ...] = (0.5, 0, 0.02), goal: tuple[float, ...] = ()) -> State:
    length = np.array([[*tool, 0.0, 0.0, 0.0, 0.02]])
    data = {
        "actuator_length": length,
        "actuator_velocity": np.zeros((1, 6)),
        "cube.qpos": np.array([[*cube, 1, 0, 0, 0]]),
    }
    return State(data, {}, {"goal": np.array([goal])} if goal else {})


def test_reach_terms_by_hand() -> None:
    params, action = panda.REACH.params, np.zeros((1, 7))
    away = state((0.5, 0.0, 0.3), goal=(0.5, 0.03, 0.34))
    np.testing.assert_allclose(panda.nearness(np, away, action, params), 1 - math.tanh(0.5))
    assert not panda.reached(np, away, params)
    there = state((0.5, 0.0, 0.3), goal=(0.5, 0.0, 0.31))
    assert panda.reached(np, there, params)
    assert panda.reach_reward(np, there, action, params) == 1.0
    hurried = State({**there.data, "actuator_velocity": np.full((1, 6), 0.1)}, {}, there.variables)
    assert not panda.reached(np, hurried, params)


def test_lift_terms_by_hand() -> None:
    params, action = {**panda.LIFT.params, "shaping": 0.5}, np.zeros((1, 7))
    assert not panda.lifted(np, state((0.5, 0, 0.02)), params)
    assert panda.lifted(np, state((0.5, 0, 0.18), (0.5, 0, 0.18)), params)
    assert not panda.lifted(np, state((0.5, 0, 0.4), (0.5, 0, 0.18)), params), "thrown, not lifted"
    half = state((0.5, 0, 0.195), (0.5, 0, 0.095))
    np.testing.assert_allclose(panda.lift_shaping(np, half, action, params), 0.5 * (1 - math.tanh(1.0) + 0.5))


def test_fingers_press_with_a_bounded_force(lend: Callable[..., Any]) -> None:
    """However long they are told to shut on a cube, their targets stay within the lead."""
    env = lend("PandaLift", 3)
    env.reset(seed=0)
    for _ in range(30):
        env.step(torch.tensor([[0.0, 0, 0, 0, 0, 0, -1.0]] * 3))
        lead = env.world.fields["robot.qpos"][:, ARM:].mean(1) - env.world.fields["robot.target"][:, ARM]
        assert (lead < panda.FINGER_LEAD + 0.05).all()
    assert (env.world.fields["robot.qpos"][:, ARM:] < 0.002).all(), "nothing between them: they shut"
    env.close()


@pytest.mark.parametrize("task", ["PandaLift", "PandaReach"])
def test_experts_succeed(task: str, lend: Callable[..., Any]) -> None:
    env = lend(task, 16)
    expert = experts.make(env, seed=1)
    obs, _ = env.reset(seed=1000)
    expert.reset(None)
    won, over = torch.zeros(16, dtype=torch.bool), torch.zeros(16, dtype=torch.bool)
    for _ in range(env.robot.max_episode_steps):
        result = env.step_chunk(expert.act(obs)[:, None])
        won |= result.success & ~over
        over |= result.done
        obs = result.obs
        expert.reset(result.done.nonzero()[:, 0].tolist())
    assert won.float().mean() > 0.8
    env.close()
