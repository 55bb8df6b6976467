"""Plans played again: from their seeds, in the mode they were made for and as joint deltas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robo_rlft.data import Dataset
from robo_rlft.errors import ConfigError, DataError
from robo_rlft.training.collect import collect
from robo_rlft.training.config import Config
from robo_rlft.training.configure import compose
from robo_rlft.training.plans import load_plans

TASK, SEEDS = "PickCube-v1", (11, 5, 8)


def targets(steps: int) -> np.ndarray:
    """Joint targets near where the arm starts, and an opening gripper."""
    rest = np.array([0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4])
    way = 0.15 * np.sin(np.linspace(0.0, 3.0, steps))[:, None]
    return np.concatenate((rest + way, np.ones((steps, 1))), axis=1).astype(np.float32)


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    path = tmp_path / "plans.npz"
    parts = [targets(steps) for steps in (20, 12, 25)]
    lengths = [len(part) for part in parts]
    rows = {"seeds": SEEDS, "lengths": lengths, "actions": np.concatenate(parts)}
    np.savez(path, task=TASK, control_mode="pd_joint_pos", **rows)
    return path


def settings(folder: Path, plans: Path, mode: str, *words: str) -> Config:
    return compose(
        [
            f"env.id=maniskill:{TASK}",
            f"env.params={{control_mode: {mode}, max_episode_steps: 30, workers: 0}}",
            f"collect.source=plans:{plans}",
            "collect.num_envs=2",
            "collect.episodes=3",
            "collect.keep=all",
            f"data.path={folder / mode}.zarr",
            *words,
        ]
    )


def test_each_plan_once_from_its_seed(tmp_path: Path, plans: Path) -> None:
    pytest.importorskip("mani_skill", reason="extra maniskill")
    from robo_rlft.envs import make

    dataset = Dataset.open(collect(settings(tmp_path, plans, "pd_joint_pos")))
    episodes = {e.seed: e for e in map(dataset.episode, range(dataset.num_episodes))}
    assert sorted(s for s in episodes if s is not None) == sorted(SEEDS)
    assert all(e.num_steps == 30 and e.truncated for e in episodes.values())
    plan = load_plans(plans).actions[5]
    assert np.array_equal(episodes[5].action[:12], plan)
    assert np.array_equal(episodes[5].action[12:], np.repeat(plan[-1:], 18, axis=0)), "the last target is held"
    env = make(f"maniskill:{TASK}", 1, workers=0, control_mode="pd_joint_pos")
    obs, _ = env.reset(seed=5)
    assert np.array_equal(episodes[5].observation["policy"][0], obs["policy"][0].numpy())


def test_deltas_lead_the_joints_where_the_targets_do(tmp_path: Path, plans: Path) -> None:
    pytest.importorskip("mani_skill", reason="extra maniskill")
    by_mode = []
    for mode in ("pd_joint_pos", "pd_joint_delta_pos"):
        dataset = Dataset.open(collect(settings(tmp_path, plans, mode)))
        by_mode.append({e.seed: e for e in map(dataset.episode, range(dataset.num_episodes))})
    for seed in SEEDS:
        original, converted = (episodes[seed] for episodes in by_mode)
        assert np.abs(converted.action[:, :7]).max() < 1.0, "a step longer than a delta may be tests nothing"
        joints = [e.observation["policy"][:, :7] for e in (original, converted)]
        assert np.allclose(*joints, atol=1e-3)
        assert np.abs(joints[0][-1] - joints[0][0]).max() > 0.01


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("env.id=maniskill:StackCube-v1",), "choose the same task"),
        (("env.params.control_mode=pd_ee_delta_pos",), "play in that mode and in pd_joint_delta_pos"),
        (("env.params.max_episode_steps=20",), "set env.params.max_episode_steps=25"),
        (("collect.episodes=4",), "kept 3 episodes of 3 plans"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, plans: Path, words: tuple[str, ...], says: str) -> None:
    pytest.importorskip("mani_skill", reason="extra maniskill")
    with pytest.raises(ConfigError, match=says):
        collect(settings(tmp_path, plans, "pd_joint_pos", *words))


def test_files_that_are_none(tmp_path: Path, plans: Path) -> None:
    with pytest.raises(DataError, match="tools/maniskill_planner"):
        load_plans(tmp_path / "nowhere.npz")
    (tmp_path / "text.npz").write_text("no plans")
    with pytest.raises(DataError, match="no file of plans"):
        load_plans(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", seeds=[1])
    with pytest.raises(DataError, match="lacks task, control_mode, lengths, actions"):
        load_plans(tmp_path / "other.npz")
    held = dict(np.load(plans))
    np.savez(tmp_path / "short.npz", **held | {"actions": held["actions"][:-1]})
    with pytest.raises(DataError, match="57 steps of 3 seeds in 56 rows"):
        load_plans(tmp_path / "short.npz")
