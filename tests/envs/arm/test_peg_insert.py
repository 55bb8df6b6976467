"""Contact, clearance, success and reset of the insertion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs import experts
from robo_rlft.envs.mujoco.task import State
from robo_rlft.envs.mujoco.tasks.arm import peg_insert
from robo_rlft.errors import ConfigError

NO_STOP = {"force_limit": 0.0}
STILL = {"hole_range": 0.0, "hole_yaw_range": 0.0, "start_range": 0.0}


def column(env: envs.BatchEnv, name: str) -> int:
    return env.robot.observation["policy"].names.index(name)


def press(offsets: list[tuple[float, float, float]], **params: float) -> np.ndarray:
    """Hold (dx, dy, dyaw) off the hole, then lower at a third of full speed; deepest point below the rim, m."""
    env = envs.make("ArmPegInsert", len(offsets), seed=0, **STILL, **NO_STOP, **params)
    seen = env.reset(seed=0)[0]["policy"].numpy().astype(float)
    goal = np.tile([*peg_insert.CENTRE, 0.05, 0.0, 0.0, 0.0], (len(offsets), 1))
    goal[:, [0, 1, 5]] += offsets
    lead = column(env, "lead_x")
    depth = np.zeros(len(offsets))
    done = np.zeros(len(offsets), bool)
    for step in range(75):
        goal[:, 2] = 0.05 if step < 25 else -1.0
        action = (goal - seen[:, :6] - seen[:, lead : lead + 6]) / np.repeat([0.01, 0.05], 3)
        action[:, 2] = np.clip(action[:, 2], -0.3, 1.0)
        obs, _, terminated, _, info = env.step(torch.from_numpy(action).float())
        final = info["final_obs"]["policy"].numpy()
        depth = np.where(done, depth, np.maximum(depth, peg_insert.HOLE_DEPTH - final[:, 2]))
        done |= terminated.numpy()
        seen = obs["policy"].numpy().astype(float)
    return depth


def test_aligned_peg_goes_in_and_3_mm_or_10_degrees_do_not() -> None:
    ten_degrees = np.deg2rad(10)
    offsets = [
        *((0.0, 0.0, 0.0), (0.0008, 0.0, 0.0), (0.0, 0.0, np.deg2rad(2))),
        *(
            (0.003, 0.0, 0.0),
            (0.0, -0.003, 0.0),
            (0.003, 0.003, 0.0),
            (0.0, 0.0, ten_degrees),
            (0.0, 0.0, -ten_degrees),
        ),
    ]
    depth = press(offsets)
    assert (depth[:3] >= peg_insert.INSERTED_DEPTH).all()
    assert (depth[3:] < 0.001).all()


def test_clearance_decides_what_fits() -> None:
    off = [(0.0025, 0.0, 0.0)]
    assert press(off, clearance=0.003)[0] >= peg_insert.INSERTED_DEPTH
    assert press(off, clearance=0.0005)[0] < 0.001


def test_no_tunnelling_under_violent_actions() -> None:
    """Whenever the tip is well below the rim and over the fixture, it is within the hole."""
    env = envs.make("ArmPegInsert", 32, seed=0)
    obs, _ = env.reset(seed=1)
    expert = experts.make(env, seed=0)
    noise = torch.Generator().manual_seed(0)
    hole = [column(env, f"hole_{n}") for n in ("x", "y", "yaw")]
    deep = 0
    for _ in range(120):
        violent = expert.act(obs) + torch.randn(32, 6, generator=noise)
        obs, _, _, _, info = env.step(violent.clip(-1, 1))
        seen = info["final_obs"]["policy"].numpy().astype(float)
        tip = peg_insert.tip_in_hole(np, State({"actuator_length": seen[:, :6]}, {}, {"hole": seen[:, hole]}))
        aside = np.abs(tip[:, :2]).max(1)
        sunk = (tip[:, 2] < -0.006) & (aside < peg_insert.FIXTURE_HALF_WIDTH - 0.02)
        deep += int(sunk.sum())
        assert (aside[sunk] < peg_insert.PEG_SIDE / 2).all()
    assert deep > 0
    assert env.nan_resets == 0


def test_finite_and_leading_little_for_1000_random_steps() -> None:
    env = envs.make("ArmPegInsert", 4, seed=0, **NO_STOP)
    env.reset(seed=0)
    noise = torch.Generator().manual_seed(1)
    lead = column(env, "lead_x")
    for _ in range(1000):
        obs, reward, *_ = env.step(torch.rand(4, 6, generator=noise) * 2 - 1)
        assert torch.isfinite(obs["policy"]).all()
        assert ((reward == 0) | (reward == 1)).all()
        # The command leads by at most its bound when set; in the 50 ms since, the tool may also have moved away.
        assert obs["policy"][:, lead : lead + 3].abs().max() < 0.02 + 0.03


def test_same_seed_same_episode_and_other_seeds_differ() -> None:
    def run(seed: int) -> torch.Tensor:
        env = envs.make("ArmPegInsert", 4, seed=seed)
        seen = [env.reset(seed=seed)[0]["policy"]]
        noise = torch.Generator().manual_seed(0)
        for _ in range(30):
            seen.append(env.step(torch.rand(4, 6, generator=noise) * 2 - 1)[0]["policy"])
        return torch.stack(seen)

    first = run(3)
    assert torch.equal(first, run(3))
    assert not torch.equal(first[0], run(4)[0])


def test_resets_fill_the_ranges_and_start_near_the_command() -> None:
    env = envs.make("ArmPegInsert", 400, seed=0)
    obs, _ = env.reset(seed=0)
    seen = obs["policy"].numpy()
    hole = seen[:, [column(env, f"hole_{n}") for n in ("x", "y", "yaw")]] - [*peg_insert.CENTRE, 0.0]
    half = np.array([0.05, 0.05, np.deg2rad(15.0)])
    assert (np.abs(hole) <= half + 1e-6).all()
    assert (np.abs(hole).max(0) > 0.97 * half).all()
    lead = column(env, "lead_x")
    assert np.abs(seen[:, lead : lead + 3]).max() < 0.004
    assert np.abs(seen[:, lead + 3 : lead + 6]).max() < 0.01


def test_hole_noise_moves_what_is_seen_and_not_the_hole() -> None:
    env = envs.make("ArmPegInsert", 500, seed=0, hole_noise=0.002, **STILL)
    obs, _ = env.reset(seed=0)
    error = obs["policy"][:, column(env, "hole_x")] - peg_insert.CENTRE[0]
    assert error.std() == pytest.approx(0.002, rel=0.15)
    yaw = obs["policy"][:, column(env, "hole_yaw")]
    assert yaw.std() == pytest.approx(0.02, rel=0.15)


def test_success_is_depth_within_the_hole_whatever_its_pose() -> None:
    hole = np.array([[0.47, 0.03, 0.2]] * 4)
    axis = np.array([np.cos(0.2), np.sin(0.2)])
    tip = np.tile([0.47, 0.03, peg_insert.HOLE_DEPTH - peg_insert.INSERTED_DEPTH - 1e-4], (4, 1))
    tip[1, 2] += 2e-4
    tip[2, :2] += 0.0131 * axis
    tip[3, :2] += 0.0129 * axis
    state = State({"actuator_length": tip}, {}, {"hole": hole})
    inside = peg_insert.inserted(np, state, peg_insert.TASK.params)
    np.testing.assert_array_equal(inside, [True, False, False, True])


def test_pushing_too_hard_is_a_failure_not_a_success() -> None:
    env = envs.make("ArmPegInsert", 1, seed=0, force_limit=30.0, **STILL)
    env.reset(seed=0)
    aside = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    down = torch.tensor([[0.0, 0.0, -0.5, 0.0, 0.0, 0.0]])
    for action in [aside] * 4 + [down] * 40:
        _, reward, terminated, _, info = env.step(action)
        if terminated[0]:
            break
    assert terminated[0]
    assert reward[0] == 0
    assert not info["success"][0]


def test_wrong_clearance_is_explained() -> None:
    with pytest.raises(ConfigError, match="clearance is -1"):
        envs.make("ArmPegInsert", 1, clearance=-1.0)


@pytest.mark.parametrize("env_id", ["ArmPegInsert", "ArmPickPlace"])
def test_names_and_units_match_the_widths(env_id: str) -> None:
    env = envs.make(env_id, 2, seed=0)
    spec = env.robot.observation["policy"]
    assert env.reset(seed=0)[0]["policy"].shape == (2, len(spec.names))
    assert len(spec.units) == len(set(spec.names)) == len(spec.names)
    assert env.robot.rate_hz == pytest.approx(20.0)
