"""The batched environment's own logic, on a stand-in for ManiSkill's GPU scene: several CPU scenes, stacked.

It shows the same interface with the same tensors (only their device differs): rows of resets, masks, chunks, states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

pytest.importorskip("mani_skill", reason="extra maniskill")

from robo_rlft.envs import conformance
from robo_rlft.envs.maniskill import library
from robo_rlft.envs.maniskill.gpu import ManiSkillGpuEnv
from robo_rlft.envs.maniskill.single import Settings
from robo_rlft.errors import SpecError


class Stacked:
    """N scenes as one, with what `ManiSkillGpuEnv` uses of `BaseEnv`."""

    def __init__(self, settings: Settings, num_envs: int) -> None:
        backends = {"sim_backend": "physx_cpu", "render_backend": "none"}
        self.parts = [library.build(settings.task, "", settings.arguments() | backends) for _ in range(num_envs)]
        self.num_envs, self.device = num_envs, torch.device("cpu")
        self.elapsed_steps = torch.zeros(num_envs, dtype=torch.int32)
        self.resets: list[tuple[list[int], list[int]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.parts[0], name)

    @property
    def agent(self) -> Any:
        return _Agents(self.parts)

    def reset(self, seed: Sequence[int], options: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
        assert len(seed) == self.num_envs
        rows = range(self.num_envs) if options is None else options["env_idx"].tolist()
        self.resets.append((list(rows), list(seed)))
        for i in rows:
            self.parts[i].reset(seed=int(seed[i]))
            self.elapsed_steps[i] = 0
        return self.get_obs(), self.get_info()

    def step(self, action: torch.Tensor) -> tuple[Any, ...]:
        assert action.shape[0] == self.num_envs
        results = [part.step(action[i : i + 1]) for i, part in enumerate(self.parts)]
        self.elapsed_steps += 1
        obs, reward, terminated, truncated, info = (_stack(list(column)) for column in zip(*results, strict=True))
        return obs, reward, terminated, truncated, info

    def get_obs(self) -> Any:
        return _stack([part.get_obs() for part in self.parts])

    def get_info(self) -> Any:
        return _stack([part.get_info() for part in self.parts])

    def get_state_dict(self) -> Any:
        return _stack([part.get_state_dict() for part in self.parts])

    def set_state_dict(self, tree: Any, env_idx: torch.Tensor) -> None:
        for k, i in enumerate(env_idx.tolist()):
            self.parts[i].set_state_dict(_row(tree, k))


class _Agents:
    """The robots of all scenes as one."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.parts[0].agent, name)

    def set_controller_state(self, tree: Any) -> None:
        for i, part in enumerate(self.parts):
            part.agent.set_controller_state(_row(tree, i))


def _stack(trees: list[Any]) -> Any:
    if isinstance(trees[0], Mapping):
        return {key: _stack([tree[key] for tree in trees]) for key in trees[0]}
    return torch.cat([torch.as_tensor(tree).reshape(1, *torch.as_tensor(tree).shape[1:]) for tree in trees])


def _row(tree: Any, i: int) -> Any:
    return {k: _row(v, i) if isinstance(v, Mapping) else v[i : i + 1] for k, v in tree.items()}


def batch(num_envs: int, task: str = "PickCube-v1", seed: int | None = 0, **changes: Any) -> ManiSkillGpuEnv:
    library.import_mani_skill()
    settings = Settings(task, **{"max_episode_steps": 12} | changes)
    return ManiSkillGpuEnv(Stacked(settings, num_envs), settings, seed=seed, dtype=torch.float32)


@pytest.mark.parametrize("rule", conformance.RULES, ids=lambda rule: rule.__name__)
def test_follows(rule: conformance.Rule) -> None:
    conformance.follow(rule, lambda num_envs: batch(num_envs, "MS-CartpoleBalance-v1"))


def test_a_chunk_is_its_steps_and_what_follows_an_end_is_not_seen() -> None:
    """Environment 1 is near its time limit: it ends in the middle of the chunk, and alone."""
    chunked, stepped = batch(3), batch(3)
    actions = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for env in (chunked, stepped):
        env.reset(seed=5)
        env.env.elapsed_steps[1] = 8
    result = chunked.step_chunk(actions, "all")
    assert result.length.tolist() == [6, 4, 6]
    assert result.truncated.tolist() == [False, True, False]
    assert not result.terminated.any()
    assert not result.reward[1, 4:].any()
    assert result.trace is not None
    for h in range(4):
        obs, reward, *_, info = stepped.step(actions[:, h])
        assert torch.equal(result.reward[:, h], reward)
        assert torch.equal(result.trace["policy"][:, h + 1], info["final_obs"]["policy"])
    assert torch.equal(result.final_obs["policy"][1], info["final_obs"]["policy"][1])
    assert torch.equal(result.trace["policy"][1, 4:], result.final_obs["policy"][1].expand(3, -1))
    assert torch.equal(result.obs["policy"][1], obs["policy"][1])
    assert not torch.equal(result.obs["policy"][1], result.final_obs["policy"][1])


def test_the_first_seed_is_one_of_those_that_begin() -> None:
    """ManiSkill draws from the first of the seeds: that of an environment that goes on would repeat itself."""
    env = batch(3)
    env.reset(options={"ids": [1, 2]})
    env.reset(options={"ids": [2]})
    (rows, seeds), (again, others) = env.env.resets[-2:]
    assert (rows, again) == ([1, 2], [2])
    assert seeds[0] == seeds[1]
    assert others[0] == others[2]
    assert others[2] != seeds[2]


def test_a_broken_environment_is_cut_off_alone() -> None:
    env = batch(3)
    before, _ = env.reset(seed=0)
    step = env.env.step

    def breaking(action: torch.Tensor) -> tuple[Any, ...]:
        obs, *rest = step(action)
        obs["agent"]["qpos"][1] = float("nan")
        return obs, *rest

    env.env.step = breaking
    result = env.step_chunk(torch.zeros(3, 2, 8))
    assert result.truncated.tolist() == [False, True, False]
    assert result.length.tolist() == [2, 1, 2]
    assert env.nan_resets == 1
    assert torch.equal(result.final_obs["policy"][1], before["policy"][1])
    assert result.obs["policy"].isfinite().all()
    assert not result.reward[1].any()


def test_states_move_between_environments() -> None:
    env = batch(3, control_mode="pd_joint_target_delta_pos")
    env.reset(seed=0)
    env.step_chunk(torch.rand(3, 4, 8) * 2 - 1)
    obs = env.fork(0, [2])
    assert torch.allclose(obs["policy"][2], obs["policy"][0], atol=1e-4)
    assert not torch.allclose(obs["policy"][1], obs["policy"][0], atol=1e-2)
    assert env.env.elapsed_steps.tolist() == [4, 4, 4]
    with pytest.raises(SpecError, match="entries"):
        env.set_state({k: v[:, :3] if k == "physics" else v for k, v in env.get_state().items()})


def test_success_counts_until_the_end_and_not_after() -> None:
    env = batch(2)
    env.reset(seed=0)
    step, calls = env.env.step, []

    def succeeding(action: torch.Tensor) -> tuple[Any, ...]:
        obs, reward, _, truncated, info = step(action)
        calls.append(1)
        late = torch.tensor([len(calls) == 2, False])
        return (
            obs,
            reward,
            late,
            truncated,
            info | {"success": late, "is_grasped": torch.tensor([len(calls) > 2, True])},
        )

    env.env.step = succeeding
    result = env.step_chunk(torch.zeros(2, 4, 8))
    assert result.terminated.tolist() == [True, False]
    assert result.success.tolist() == [True, False]
    assert result.length.tolist() == [2, 4]
    assert result.metrics["is_grasped"].tolist() == [0.0, 1.0]
