"""The legged tasks on MuJoCo: standing, limits, commands, ground, and what the episode remembers."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs import conformance
from robo_rlft.envs.legged.robots import G1, GO2, LeggedRobot
from robo_rlft.envs.legged.terrain import TILES, height_at, terrain
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.errors import ConfigError

IDS = {"QuadrupedFlat": GO2, "QuadrupedRough": GO2, "HumanoidWalk": G1}
STILL: dict[str, Any] = {"start_velocity": 0.0, "start_joint_noise": 0.0}


def legged(env_id: str = "QuadrupedFlat", num: int = 2, **params: Any) -> MujocoEnv:
    env = envs.make(env_id, num, seed=0, threads=1, **{"dtype": torch.float64, **params})
    assert isinstance(env, MujocoEnv)
    return env


def zeros(env: MujocoEnv) -> torch.Tensor:
    return torch.zeros(env.num_envs, len(env.robot.action.names), dtype=torch.float64)


@pytest.mark.parametrize("rule", conformance.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("env_id", IDS)
def test_follows_the_rules(env_id: str, rule: conformance.Rule) -> None:
    conformance.follow(rule, lambda num_envs: envs.make(env_id, num_envs, threads=1))


@pytest.mark.parametrize(("env_id", "robot"), IDS.items())
def test_the_controller_finds_all_it_needs(env_id: str, robot: LeggedRobot) -> None:
    """Names, order, pose, gains and limits of the specification are those of the simulated actuators."""
    env = legged(env_id)
    model, task = env.simulation.model, env.robot.task
    assert env.robot.rate_hz == 50
    assert model.opt.timestep <= 1 / 200
    assert env.robot.action.names == task["joint_names"] == robot.joints
    for i, joint in enumerate(task["joint_names"]):
        assert model.joint(model.actuator(i).trnid[0]).name == joint
        assert model.joint(joint).qposadr[0] == 7 + i
        np.testing.assert_allclose(model.actuator(i).gainprm[0], task["kp"][i])
        np.testing.assert_allclose(model.actuator(i).biasprm[:3], [0, -task["kp"][i], -task["kd"][i]])
        np.testing.assert_allclose(model.actuator(i).forcerange, np.array([-1, 1]) * task["torque_limit"][i])
        np.testing.assert_allclose(model.joint(joint).range, [task["joint_low"][i], task["joint_high"][i]])
        assert task["joint_low"][i] < task["default_joint_pos"][i] < task["joint_high"][i]
    for i, foot in enumerate(robot.feet):
        assert model.sensor(i).name == foot
        assert model.sensor(i).type == mujoco.mjtSensor.mjSENS_TOUCH


@pytest.mark.parametrize(("env_id", "mass"), [("QuadrupedFlat", 15.0), ("HumanoidWalk", 33.3)])
def test_mass_rests_on_the_feet(env_id: str, mass: float) -> None:
    """The model has the published mass, and in the default pose the feet carry it."""
    env = legged(env_id, **STILL)
    model = env.simulation.model
    assert model.body_mass.sum() == pytest.approx(mass, abs=0.1)
    for _ in range(75 if env_id == "QuadrupedFlat" else 15):
        env.step(zeros(env))
    feet = len(IDS[env_id].feet)
    weight = 9.81 * model.body_mass.sum()
    np.testing.assert_allclose(env.simulation.data["sensordata"][:, :feet].sum(1), weight, rtol=0.1)


@pytest.mark.parametrize(("env_id", "steps"), [("QuadrupedFlat", 100), ("QuadrupedRough", 100), ("HumanoidWalk", 20)])
def test_holds_the_default_pose(env_id: str, steps: int) -> None:
    """With zero actions the robot stands, still and near the pose, on its feet alone.

    The quadruped does so for two seconds and more; of a humanoid, whose ankles are softer than it is top-heavy, nobody
    can ask that without balancing.
    """
    env = legged(env_id, **STILL)
    for _ in range(steps):
        _, _, terminated, _, _ = env.step(zeros(env))
        assert not terminated.any()
    qpos, qvel = env.simulation.data["qpos"], env.simulation.data["qvel"]
    default = np.array(IDS[env_id].default_joint_pos)
    assert np.abs(qpos[:, 7:] - default).max() < 0.7
    assert np.abs(qvel[:, :3]).max() < 0.1
    assert env.simulation.data["sensordata"][:, : len(IDS[env_id].feet)].min() > 1.0
    if env_id != "QuadrupedRough":  # where a hill may reach a shank
        assert np.abs(env.reward_terms(zeros(env))["undesired_contacts"].numpy()).max() == 0


def test_the_pd_law_holds_in_every_substep() -> None:
    """The torque of the last substep belongs to the state before it, not to that of the control step's start."""
    env = legged(num=1, **STILL)
    action = torch.full((1, 12), 0.5, dtype=torch.float64)
    env.step(action)
    model, task = env.simulation.model, env.robot.task
    data, start = mujoco.MjData(model), legged(num=1, **STILL)
    mujoco.mj_setState(model, data, start.simulation.state[0], mujoco.mjtState.mjSTATE_INTEGRATION)
    target = np.array(task["default_joint_pos"]) + task["action_scale"] * 0.5
    data.ctrl[:] = target
    q, v = data.qpos[7:].copy(), data.qvel[6:].copy()
    for _ in range(4):
        q, v = data.qpos[7:].copy(), data.qvel[6:].copy()
        mujoco.mj_step(model, data)
    limit = np.array(task["torque_limit"])
    torque = np.clip(np.array(task["kp"]) * (target - q) - np.array(task["kd"]) * v, -limit, limit)
    np.testing.assert_allclose(env.simulation.data["actuator_force"][0], torque, atol=1e-9)


def test_torques_stay_within_their_limits() -> None:
    env, rng = legged(num=4), np.random.default_rng(0)
    limit, largest = np.array(GO2.torque_limit), np.zeros(12)
    for _ in range(50):
        env.step(torch.from_numpy(4.0 * rng.choice([-1.0, 1.0], (4, 12))))
        largest = np.maximum(largest, np.abs(env.simulation.data["actuator_force"]).max(0))
    assert (largest <= limit + 1e-9).all()
    weak = legged(num=4, torque_limit=(5.0,) * 12)
    for _ in range(5):
        weak.step(torch.full((4, 12), 4.0, dtype=torch.float64))
        assert np.abs(weak.simulation.data["actuator_force"]).max() <= 5.0 + 1e-9
    with pytest.raises(ConfigError, match="none may be negative"):
        legged(kp=(-1.0,) * 12)


def test_commands_come_from_the_seed_and_are_resampled() -> None:
    env, again = legged(command_s=0.1), legged(command_s=0.1)
    names = env.robot.observation["policy"].names
    columns = [names.index(n) for n in ("command_vx", "command_vy", "command_yaw")]
    seen = []
    for one in (env, again):
        obs, _ = one.reset(seed=7)
        rows = [obs["policy"][:, columns]]
        for _ in range(12):
            rows.append(one.step(zeros(one))[0]["policy"][:, columns])
        seen.append(torch.stack(rows))
    assert torch.equal(*seen)
    changed = (seen[0][1:] != seen[0][:-1]).any(-1)
    assert changed[4].all()
    assert changed[9].all()
    assert int(changed.sum()) == 4
    assert not torch.equal(seen[0][0], env.reset(seed=8)[0]["policy"][:, columns])


def test_the_reward_pays_for_the_command_that_was_seen() -> None:
    """Where a new command begins, the step that led there is still paid by the old one."""
    env = legged(num=1, command_s=0.02)
    obs, _ = env.reset(seed=3)
    start = env.robot.observation["policy"].names.index("command_vx")
    for _ in range(3):
        asked = obs["policy"][0, start : start + 2].numpy()
        obs, *_ = env.step(zeros(env))
        names = env.robot.observation["critic"].names
        speed = obs["critic"][0, [names.index("vx"), names.index("vy")]].numpy()
        expected = 1.5 * 0.02 * np.exp(-np.sum((asked - speed) ** 2) / 0.25)
        np.testing.assert_allclose(env.reward_terms(zeros(env))["track_velocity"][0], expected, rtol=1e-9)


def test_metrics_are_mean_errors_of_the_episode() -> None:
    env = legged(num=2)
    obs, _ = env.reset(seed=0)
    policy, critic = env.robot.observation["policy"].names, env.robot.observation["critic"].names
    asked, speed = [policy.index(n) for n in ("command_vx", "command_vy")], [critic.index(n) for n in ("vx", "vy")]
    errors = []
    for _ in range(6):
        command = obs["policy"][:, asked]
        obs, _, _, _, info = env.step(zeros(env))
        errors.append((command - obs["critic"][:, speed]).norm(dim=1))
        torch.testing.assert_close(info["metrics"]["velocity_error"], torch.stack(errors).mean(0))
    chunk = env.step_chunk(zeros(env)[:, None].repeat(1, 3, 1))
    assert set(chunk.metrics) == set(env.metrics) == {"velocity_error", "yaw_error"}


def test_success_is_an_episode_of_small_errors() -> None:
    """A robot that stands where it is asked to stand succeeds; one that is asked to run does not."""
    nowhere: dict[str, Any] = {**STILL, "command_vx": (0.0, 0.0), "command_vy": (0.0, 0.0), "command_yaw": (0.0, 0.0)}
    fast: dict[str, Any] = {**nowhere, "command_vx": (1.0, 1.0), "stand_share": 0.0}
    lazy, eager = legged(success_s=0.6, **nowhere), legged(success_s=0.6, **fast)
    for step in range(30):
        results = [one.step(zeros(one))[4]["success"] for one in (lazy, eager)]
        assert results[0].all() == (step == 29)
        assert not results[1].any()


def test_a_robot_on_its_back_has_fallen() -> None:
    env = legged(num=2)
    env.simulation.field("qpos")[1, 3:7] = [0.0, 1.0, 0.0, 0.0]
    _, _, terminated, truncated, _ = env.step(zeros(env))
    assert terminated.tolist() == [False, True]
    assert not truncated.any()


def test_air_time_is_paid_at_landing() -> None:
    """A robot dropped from a height lands once, and is paid by the time it fell beyond the free part."""
    env = legged(num=1, air_time_s=0.1, **STILL, stand_share=0.0)
    env.simulation.field("qpos")[0, 2] += 0.3
    paid = []
    for _ in range(40):
        env.step(zeros(env))
        paid.append(float(env.reward_terms(zeros(env))["feet_air_time"][0]) / 0.02)
    landing = [i for i, value in enumerate(paid) if abs(value) > 1e-9]
    fall = np.sqrt(2 * 0.31 / 9.81)
    assert landing[0] == pytest.approx(fall / 0.02, abs=3)
    assert sum(paid[: landing[0] + 4]) == pytest.approx(4 * (fall - 0.1), abs=0.25)


def test_levels_start_on_their_tiles_over_the_ground() -> None:
    env = legged("QuadrupedRough", num=len(TILES))
    assert env.variants == TILES
    env.set_variants(range(len(TILES)))
    env.reset(seed=0)
    assert env.variant.tolist() == list(range(len(TILES)))
    ground = terrain(0)
    qpos = env.simulation.data["qpos"]
    assert np.abs(qpos[:, :2] - ground.origins).max() <= 1.0
    critic = env.robot.observation["critic"].names
    height = env.reset(seed=0)[0]["critic"][:, critic.index("height")].numpy()
    np.testing.assert_allclose(height, qpos[:, 2] - height_at(np, ground, qpos[:, :2]))
    for _ in range(15):
        *_, terminated, _, _ = env.step(zeros(env))
        assert not terminated.any()
    assert env.simulation.data["sensordata"][:, :4].sum(1).min() > 50.0


@pytest.mark.parametrize("env_id", IDS)
def test_what_sensors_give_is_not_what_only_a_simulator_knows(env_id: str) -> None:
    groups = envs.make(env_id).robot.observation
    assert set(groups["policy"].names) < set(groups["critic"].names)
    hidden = set(groups["critic"].names) - set(groups["policy"].names)
    assert {"vx", "vy", "vz", "height", "friction"} <= hidden
