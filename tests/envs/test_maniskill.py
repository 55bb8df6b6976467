"""ManiSkill's tasks as environments: rules, seeds, states, messages, the expert; images where there is a driver."""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mani_skill", reason="extra maniskill")

from robo_rlft.envs import conformance, experts, make
from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.images import ImagesConfig, RandomiseConfig
from robo_rlft.envs.maniskill import headless, library, tasks
from robo_rlft.envs.maniskill.panda import jacobian
from robo_rlft.errors import ConfigError

PICK = "maniskill:PickCube-v1"
TASKS = ("PickCube-v1", "PegInsertionSide-v1", "MS-HopperHop-v1", "TwoRobotPickCube-v1")
"""One with a goal, one that is built anew for each episode, one without a robot arm, one with two."""


@pytest.fixture
def driver() -> None:
    """Skips where SAPIEN cannot draw."""
    if not headless.can_draw():
        pytest.skip("no Vulkan driver for SAPIEN (Debian 12: mesa-vulkan-drivers of bookworm-backports)")


def picker(num_envs: int, **params: Any) -> BatchEnv:
    return make(PICK, num_envs, workers=0, **params)


def random_actions(env: BatchEnv, steps: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    low, high = np.array(env.robot.action.low), np.array(env.robot.action.high)
    return torch.tensor(rng.uniform(low, high, (env.num_envs, steps, len(low))), dtype=torch.float32)


@pytest.mark.parametrize("rule", conformance.RULES, ids=lambda rule: rule.__name__)
def test_follows(rule: conformance.Rule) -> None:
    conformance.follow(rule, lambda num_envs: picker(num_envs, max_episode_steps=12))


def test_workers_change_nothing() -> None:
    local, spread = picker(3), make(PICK, 3, workers=2)
    actions = random_actions(local, 6)
    results = []
    for env in (local, spread):
        env.reset(seed=4)
        results.append(env.step_chunk(actions, "all"))
        env.close()
    mine, theirs = results
    assert mine.trace is not None
    assert theirs.trace is not None
    assert torch.equal(mine.trace["policy"], theirs.trace["policy"])
    assert torch.equal(mine.reward, theirs.reward)
    assert not torch.equal(mine.reward[0], mine.reward[1])


def test_names_and_bounds() -> None:
    env = make("maniskill:TwoRobotPickCube-v1", 1, workers=0)
    names = env.robot.action.names
    assert len(names) == len(set(names)) == 16
    assert names[0] == "panda_wristcam-0/panda_joint1"
    target = picker(1, control_mode="pd_joint_pos")
    assert target.robot.action.names[:2] == ("panda_joint1", "panda_joint2")
    assert target.robot.action.high[0] == pytest.approx(2.8973)
    assert np.isfinite([*target.robot.action.low, *target.robot.action.high]).all()
    column = target.robot.observation["policy"].names.index("qpos/panda_joint4")
    obs, _ = target.reset(seed=0)
    assert obs["policy"][0, column].item() == pytest.approx(-np.pi * 5 / 8, abs=0.1)


def test_joint_targets_are_reached() -> None:
    env = picker(1, control_mode="pd_joint_pos", reward_mode="sparse")
    obs, _ = env.reset(seed=0)
    target = obs["policy"][:, :8].clone()
    target[:, 0] += 0.2
    target[:, 7] = 1.0
    result = env.step_chunk(target[:, None].repeat(1, 30, 1))
    assert result.final_obs["policy"][0, 0].item() == pytest.approx(target[0, 0].item(), abs=0.01)
    assert not result.reward.any()


@pytest.mark.parametrize(("state", "hidden"), [("visual", "obj_pose/x"), ("robot", "goal_pos/x")])
def test_a_policy_may_see_less_and_the_critic_everything(state: str, hidden: str) -> None:
    env = picker(2, state=state)
    groups = env.robot.observation
    assert hidden not in groups["policy"].names
    assert hidden in groups["critic"].names
    assert "qpos/panda_joint1" in groups["policy"].names
    obs, _ = env.reset(seed=0)
    full, _ = picker(2).reset(seed=0)
    assert torch.equal(obs["critic"], full["policy"])


def test_time_limit_success_and_metrics() -> None:
    env = picker(3, reward_mode="normalized_dense")
    expert = experts.make(env)
    obs, _ = env.reset(seed=0)
    ends = torch.zeros(3, dtype=torch.bool)
    while not ends.all():
        obs, reward, terminated, truncated, info = env.step(expert.act(obs))
        assert torch.equal(terminated, info["success"])
        assert not (terminated & truncated).any()
        assert (reward[terminated] == 1.0).all()
        assert (info["metrics"]["is_grasped"][terminated] == 1.0).all()
        ends |= terminated | truncated
    still = picker(1, max_episode_steps=5)
    still.reset(seed=0)
    result = still.step_chunk(torch.zeros(1, 8, 8))
    assert result.truncated.item()
    assert result.length.item() == 5


def test_success_need_not_end_an_episode() -> None:
    env = picker(1, ignore_terminations=True)
    expert = experts.make(env)
    obs, _ = env.reset(seed=0)
    for step in range(50):
        obs, _, terminated, truncated, info = env.step(expert.act(obs))
        assert not terminated.any()
        assert bool(truncated.all()) == (step == 49)
    assert info["success"].all()


@pytest.mark.parametrize(
    ("mode", "episodes"), [("pd_joint_delta_pos", 10), ("pd_ee_delta_pos", 3), ("pd_ee_delta_pose", 3)]
)
def test_the_expert_succeeds(mode: str, episodes: int) -> None:
    env = picker(episodes, control_mode=mode)
    expert = experts.make(env, seed=1)
    obs, _ = env.reset(seed=100)
    won, over = (torch.zeros(episodes, dtype=torch.bool) for _ in range(2))
    while not over.all():
        obs, _, terminated, truncated, _ = env.step(expert.act(obs))
        won |= terminated & ~over
        over |= terminated | truncated
    assert won.float().mean() >= 0.9


def test_the_expert_moves_the_panda() -> None:
    with pytest.raises(ConfigError, match="control_mode is pd_joint_pos"):
        experts.make(picker(1, control_mode="pd_joint_pos"))


def test_the_jacobian_is_that_of_the_simulated_arm() -> None:
    """Finite differences of the hand's pose that ManiSkill reports."""
    env = picker(1, control_mode="pd_joint_pos", max_episode_steps=400)
    names = list(env.robot.observation["policy"].names)
    joints = [names.index(f"qpos/panda_joint{i}") for i in range(1, 8)]
    hand = [names.index(f"tcp_pose/{axis}") for axis in "xyz"]
    obs, _ = env.reset(seed=0)
    start = obs["policy"][:, :8].clone()
    start[:, 7] = 1.0

    def settled(target: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        seen = env.step_chunk(target[:, None].repeat(1, 20, 1)).obs["policy"][0].numpy().astype(float)
        return seen[joints], seen[hand]

    q0, p0 = settled(start)
    for joint in range(7):
        moved = start.clone()
        moved[0, joint] += 0.05
        q1, p1 = settled(moved)
        middle = jacobian((q0 + q1)[None] / 2)[0, :3]
        assert np.allclose(p1 - p0, middle @ (q1 - q0), atol=2e-4), joint


@pytest.mark.parametrize("task", ["PickCube-v1", "PegInsertionSide-v1"])
def test_physics_comes_back_nearly(task: str) -> None:
    """Into an environment that was in another episode, with other sizes of peg and hole."""
    env, other = (make(f"maniskill:{task}", 1, workers=0, restore="physics") for _ in range(2))
    assert env.fidelity == "drift"
    env.reset(seed=3)
    env.step_chunk(random_actions(env, 10))
    other.reset(seed=8)
    obs = other.set_state(env.get_state())
    actions = random_actions(env, 10, seed=1)
    mine, theirs = env.step_chunk(actions, "all"), other.step_chunk(actions, "all")
    assert mine.trace is not None
    assert theirs.trace is not None
    assert torch.allclose(obs["policy"], mine.trace["policy"][:, 0], atol=1e-4)
    assert torch.allclose(theirs.trace["policy"], mine.trace["policy"], atol=0.05)
    assert torch.equal(mine.length, theirs.length)


def test_a_replayed_state_of_another_geometry() -> None:
    env, other = (make("maniskill:PegInsertionSide-v1", 1, workers=0) for _ in range(2))
    assert env.fidelity == "exact"
    env.reset(seed=3)
    env.step_chunk(random_actions(env, 10))
    other.reset(seed=8)
    other.set_state(env.get_state())
    actions = random_actions(env, 10, seed=1)
    mine, theirs = env.step_chunk(actions), other.step_chunk(actions)
    assert torch.equal(mine.final_obs["policy"], theirs.final_obs["policy"])


def test_every_task_is_listed_with_its_download() -> None:
    lines = {line.split()[0]: line for line in tasks()}
    assert len(lines) >= 70
    assert lines["PickCube-v1"] == "PickCube-v1"
    if not library._is_there("ycb"):
        assert "python -m mani_skill.utils.download_asset -y ycb" in lines["PickSingleYCB-v1"]
    assert sum(line == name for name, line in lines.items()) >= 40


def test_nothing_is_downloaded_or_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*args: object, **kwargs: object) -> None:
        raise AssertionError("ManiSkill asked or fetched")

    monkeypatch.setenv("MS_SKIP_ASSET_DOWNLOAD_PROMPT", "1")  # ManiSkill would then download without asking
    monkeypatch.setattr("builtins.input", unwanted)
    download_asset = importlib.import_module("mani_skill.utils.download_asset")
    monkeypatch.setattr(download_asset, "download", unwanted)
    monkeypatch.setattr(library, "missing_assets", lambda task, robot: [])  # as where a task does not declare them
    if library._is_there("widowxai"):
        pytest.skip("the files are there")
    with pytest.raises(ConfigError, match="download_asset -y widowxai"):
        make("maniskill:PickCubeWidowXAI-v1", 1, workers=0)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"env_id": "maniskill:PickCub-v1"}, "did you mean PickCube"),
        ({"env_id": "maniskill:PickSingleYCB-v1"}, "download_asset -y ycb"),
        ({"control_mode": "pd_joint"}, "'pd_joint_delta_pos'"),
        ({"reward_mode": "shaped"}, "unknown reward_mode 'shaped'"),
        ({"state": "all"}, "known are robot, task, visual"),
        ({"restore": "exact"}, "known are physics, replay"),
        ({"task_args": {"colour": "red"}}, "unexpected keyword argument 'colour'"),
        ({"sim_backend": "cuda"}, "physx_cuda"),
        ({"sim_backend": "physx_cuda"}, "needs device=cuda"),
        ({"images": ImagesConfig(["base_camera"], randomise=RandomiseConfig(colour=0.5))}, "cannot be randomised"),
    ],
)
def test_messages(params: dict[str, Any], says: str) -> None:
    if "YCB" in params.get("env_id", "") and library._is_there("ycb"):
        pytest.skip("the files are there")
    with pytest.raises(ConfigError, match=says):
        make(**{"env_id": PICK, "num_envs": 1, "workers": 0} | params)


@pytest.mark.parametrize("drawing", ["images", "render"])
def test_a_missing_driver_is_named_with_what_mends_it(drawing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = picker(1)
    env.reset(seed=0)
    monkeypatch.setattr(headless, "can_draw", lambda: False)
    ask: dict[str, Callable[[], object]] = {
        "images": lambda: picker(1, images=ImagesConfig(["base_camera"])),
        "render": env.render,
    }
    with pytest.raises(ConfigError, match="bookworm-backports mesa-vulkan-drivers"):
        ask[drawing]()


def test_the_gpu_library_is_never_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(ConfigError, match="enable_gpu"):
        make(PICK, 2, device="cuda", sim_backend="physx_cuda")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("task", TASKS)
def test_trajectories_are_the_same_without_a_driver(task: str) -> None:
    nowhere = {"VK_ICD_FILENAMES": "/nowhere", "VK_DRIVER_FILES": "/nowhere"}
    with_driver, without = (_fingerprint(task, environment) for environment in ({}, nowhere))
    assert with_driver[1] == "True"
    assert without[1] == "False"
    assert with_driver[0] == without[0]


def _fingerprint(task: str, environment: dict[str, str]) -> list[str]:
    program = f"from test_maniskill import fingerprint; print(*fingerprint({task!r}))"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    variables = os.environ | {"PYTHONPATH": path} | environment
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    return done.stdout.split()[-2:]


def fingerprint(task: str) -> tuple[str, bool]:
    """Of 30 random steps, and whether this process can draw."""
    env = make(f"maniskill:{task}", 1, workers=0)
    env.reset(seed=3)
    result = env.step_chunk(random_actions(env, 30), "all")
    assert result.trace is not None
    numbers = result.trace["policy"].numpy().tobytes() + result.reward.numpy().tobytes()
    return hashlib.sha256(numbers).hexdigest(), headless.can_draw()


@pytest.mark.slow
@pytest.mark.usefixtures("driver")
def test_images_are_a_function_of_the_state() -> None:
    env = picker(2, images=ImagesConfig(["base_camera"], [48, 64]))
    obs, _ = env.reset(seed=0)
    assert obs["image/base_camera"].shape == (2, 48, 64, 3)
    assert obs["image/base_camera"].float().std() > 10
    assert not torch.equal(obs["image/base_camera"][0], obs["image/base_camera"][1])
    saved = env.get_state()
    moved = env.step_chunk(random_actions(env, 4)).obs
    assert not torch.equal(moved["image/base_camera"], obs["image/base_camera"])
    assert torch.equal(env.set_state(saved)["image/base_camera"], obs["image/base_camera"])
    blind = picker(2)
    blind.reset(seed=0)
    assert torch.equal(blind.step_chunk(random_actions(blind, 4)).obs["policy"], moved["critic"])
    with pytest.raises(ConfigError, match="known are base_camera"):
        picker(1, images=ImagesConfig(["wrist"]))


@pytest.mark.usefixtures("driver")
def test_pictures_show_the_present_state_in_any_size() -> None:
    env = picker(2)
    env.reset(seed=0)
    first = env.render(size=(60, 80))
    assert first.shape == (2, 60, 80, 3)
    assert first.std() > 10
    before = env.get_state()
    env.step_chunk(random_actions(env, 10))
    assert (env.render(size=(60, 80)) != first).any()
    env.set_state(before)
    assert np.array_equal(env.render(size=(60, 80)), first)
    with pytest.raises(ConfigError, match="known are base_camera, render_camera"):
        env.render([0], camera="nose")
