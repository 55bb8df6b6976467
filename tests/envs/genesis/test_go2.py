"""The Go2: standing, the view of its state, the same episodes as on MuJoCo, and domain randomisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs.genesis.tasks import go2
from robo_rlft.envs.legged.robots import GO2
from robo_rlft.envs.legged.terrain import TILES, height_at
from robo_rlft.envs.randomise import RandomiseConfig

STILL: dict[str, Any] = {"start_velocity": 0.0, "start_joint_noise": 0.0}
SIGHT = go2._Sight(None)


def view(env: Any) -> Any:
    return SIGHT(env.arrays.xp, env._episodes.now(), env.params)


def test_stands_on_its_feet(lend: Callable[..., Any]) -> None:
    """Zero actions hold the default pose for two seconds, sagging as on MuJoCo; the feet alone carry 15 kg."""
    env = lend("Go2Flat", 3, **STILL)
    env.reset(seed=0)
    result = env.step_chunk(torch.zeros(3, 100, 12))
    assert not result.done.any()
    seen = view(env)
    assert seen.contact.all()
    np.testing.assert_array_equal(seen.undesired, 0)
    other = envs.make("QuadrupedFlat", 3, seed=0, threads=1, **STILL)
    column = other.robot.observation["critic"].names.index("height")
    sagged = other.step_chunk(torch.zeros(3, 100, 12)).final_obs["critic"][:, column]
    np.testing.assert_allclose(seen.height, sagged, atol=0.03)
    other.close()
    assert (seen.gravity[:, 2] < -0.99).all()
    weight = env.world.fields["robot.contact"][:, list(go2.FEET), 2].sum(1)
    np.testing.assert_allclose(weight, 9.81 * 15.019, rtol=0.05)
    assert (np.abs(seen.torque) <= np.array(GO2.torque_limit) + 1e-4).all()
    env.close()


def test_the_view_is_what_genesis_says(lend: Callable[..., Any]) -> None:
    env = lend("Go2Flat", 3)
    env.reset(seed=4)
    for k in range(15):
        env.step(torch.from_numpy(np.random.default_rng(k).uniform(-2, 2, (3, 12))).float())
    robot, seen = env.world.entities["robot"], view(env)
    quat = robot.get_quat().numpy()
    w, xyz = quat[:, :1], quat[:, 1:]

    def into_body(vector: np.ndarray) -> np.ndarray:
        twice = 2 * np.cross(-xyz, vector)
        return vector + w * twice + np.cross(-xyz, twice)

    np.testing.assert_allclose(seen.lin_vel, into_body(robot.get_vel().numpy()), atol=1e-5)
    np.testing.assert_allclose(seen.ang_vel, into_body(robot.get_ang().numpy()), atol=1e-5)
    np.testing.assert_allclose(seen.gravity, into_body(np.tile([0.0, 0.0, -1.0], (3, 1))), atol=1e-5)
    feet = robot.get_links_vel().numpy()[:, list(go2.FEET), :2]
    np.testing.assert_allclose(seen.foot_speed, np.linalg.norm(feet, axis=-1), atol=1e-4)
    np.testing.assert_allclose(seen.joint_pos, robot.get_dofs_position().numpy()[:, 6:], atol=1e-6)
    force = robot.get_links_net_contact_force().norm(dim=-1).numpy()
    np.testing.assert_array_equal(seen.contact, force[:, list(go2.FEET)] > 1.0)
    env.close()


def test_episodes_begin_as_on_mujoco(lend: Callable[..., Any]) -> None:
    """One text of the task: the same seed gives the same observation at the start, whatever the engine."""
    env = lend("Go2Flat", 3)
    ours = env.reset(seed=8)[0]
    theirs = envs.make("QuadrupedFlat", 3, seed=0, threads=1)
    assert env.robot.observation["policy"] == theirs.robot.observation["policy"]
    assert env.robot.action == theirs.robot.action
    assert env.robot.rate_hz == theirs.robot.rate_hz
    expected = theirs.reset(seed=8)[0]
    torch.testing.assert_close(ours["policy"], expected["policy"], atol=1e-5, rtol=0)
    assert [t.name for t in env.task.rewards] == [t.name for t in theirs.task.rewards]  # pyright: ignore
    theirs.close()
    env.close()


def test_falls_end_episodes_apart_from_the_time_limit(lend: Callable[..., Any]) -> None:
    env = lend("Go2Flat", 3)
    env.reset(seed=0)
    qpos = torch.from_numpy(env.world.fields["robot.qpos"].copy())
    qpos[1, 3:7] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    env.world.entities["robot"].set_qpos(qpos)
    _, _, terminated, truncated, info = env.step(torch.zeros(3, 12))
    assert terminated.tolist() == [False, True, False]
    assert not truncated.any()
    assert info["metrics"].keys() == {"velocity_error", "yaw_error"}
    env.close()


def test_figures_are_means_over_the_episode(lend: Callable[..., Any]) -> None:
    env = lend("Go2Flat", 3)
    env.reset(seed=2)
    names = env.robot.observation["critic"].names
    at = [names.index(n) for n in ("vx", "vy", "command_vx", "command_vy")]
    result = env.step_chunk(torch.zeros(3, 10, 12), record="all")
    vx, vy, cx, cy = (result.trace["critic"][..., i] for i in at)
    # The command of a step is what the observation before it showed.
    errors = torch.hypot(cx[:, :-1] - vx[:, 1:], cy[:, :-1] - vy[:, 1:])
    torch.testing.assert_close(result.metrics["velocity_error"], errors.mean(1), atol=1e-4, rtol=0)
    env.close()


def test_episodes_draw_their_own_physics(lend: Callable[..., Any]) -> None:
    """Ranges are kept, seeds decide, and a new episode starts from the nominal values again."""
    config = RandomiseConfig(mass=[0.5, 1.5], friction=[0.5, 1.5], gains=[0.8, 1.2])
    env = lend("Go2Flat", 3, randomise=config)
    solver, dofs = env.world.scene.rigid_solver, list(range(6, 18))

    def drawn() -> tuple[np.ndarray, ...]:
        links = [link.idx for link in env.world.entities["robot"].links]
        return (
            solver.get_links_mass(links).numpy().copy(),
            env.world.fields["robot.friction"].copy(),
            solver.get_dofs_kp(dofs).numpy().copy(),
            solver.get_dofs_kv(dofs).numpy().copy(),
        )

    seen = []
    for seed in (0, 1, 2, 0):
        env.reset(seed=seed)
        seen.append(drawn())
        mass, friction, kp, kv = seen[-1]
        nominal = np.array([6.923, *[0.678, 1.152, 0.154, 0.04] * 4])
        assert (np.abs(mass / nominal - 1) <= 0.501).all()
        assert (np.abs(friction - 1) <= 0.501).all()
        assert (np.abs(kp / 20 - 1) <= 0.2001).all()
        np.testing.assert_allclose(kv / 0.5, kp / 20, rtol=1e-5)
    for first, other, again in zip(seen[0], seen[1], seen[3], strict=True):
        np.testing.assert_array_equal(first, again)
        assert (first[0] != other[0]).any()
        np.testing.assert_array_equal(first[1], other[0])
    critic = env.robot.observation["critic"].names.index("friction")
    obs = env.reset(seed=0)[0]
    np.testing.assert_allclose(obs["critic"][:, critic], 0.8 * seen[0][1][:, 0], rtol=1e-5)
    env.close()


def test_commands_arrive_late(lend: Callable[..., Any]) -> None:
    env = lend("Go2Flat", 3, randomise=RandomiseConfig(latency_s=[0.04, 0.04]))
    env.reset(seed=0)
    default, sent = np.array(GO2.default_joint_pos), []
    for k in range(5):
        action = torch.full((3, 12), 0.1 * (k + 1))
        env.step(action)
        sent.append(default + GO2.action_scale * 0.1 * (k + 1))
        arrived = sent[k - 2] if k >= 2 else default
        np.testing.assert_allclose(env.world.fields["robot.target"], np.tile(arrived, (3, 1)), atol=1e-6)
    env.close()


def test_pushes_come_at_their_interval(lend: Callable[..., Any]) -> None:
    """Two batches, one pushed: bases part company within one interval, by no more than the push."""
    calm = lend("Go2Flat", 3, **STILL)
    pushed = lend("Go2Flat", 3, randomise=RandomiseConfig(push_velocity=0.5, push_interval_s=0.2), **STILL)
    jumps = []
    for env in (calm, pushed):
        env.reset(seed=0)
        speeds = []
        for _ in range(21):
            env.step(torch.zeros(3, 12))
            speeds.append(env.world.fields["robot.qvel"][:, :2].copy())
        jumps.append(np.array(speeds))
    apart = np.abs(jumps[1] - jumps[0]).max(-1)
    assert (apart[0] == 0).all(), "no push at once"
    assert ((apart[:11] > 0.01).any(0)).all()
    assert apart.max() < 1.0
    calm.close()
    pushed.close()


@pytest.mark.slow
def test_rough_ground_is_where_the_terms_think_it_is(lend: Callable[..., Any]) -> None:
    """On every tile the robot stands on its feet, and its height is that over the ground below."""
    env = lend("Go2Rough", 12, **STILL)
    assert env.variants == TILES
    env.set_variants(range(12))
    env.reset(seed=0)
    ground = go2.rough_ground(env.params)
    tiles = np.abs(env.world.fields["robot.qpos"][:, :2] - ground.origins).max(1)
    assert (tiles <= 1.0).all()
    result = env.step_chunk(torch.zeros(12, 50, 12))
    assert (~result.done).float().mean() > 0.8
    keep = ~result.done.numpy()
    qpos = env.world.fields["robot.qpos"][keep]
    above = qpos[:, 2] - height_at(np, ground, qpos[:, :2])
    assert ((above > 0.15) & (above < 0.5)).all()
    feet = env.world.fields["robot.pos"][keep][:, list(go2.FEET)]
    clear = feet[..., 2] - height_at(np, ground, feet[..., :2])
    assert (np.abs(clear.min(1)) < 0.06).all()
    env.close()
