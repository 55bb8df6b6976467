"""What `collect` records: the robot's own observations and actions, whoever acts and whoever labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from robo_rlft.data import Dataset, Episode
from robo_rlft.envs import make
from robo_rlft.envs.base import ChunkResult, Obs
from robo_rlft.errors import DataError
from robo_rlft.noise import episode_noise
from robo_rlft.policies.residual import ResidualPolicy
from robo_rlft.training.collect import SEED, collect
from robo_rlft.training.config import Config
from robo_rlft.training.evaluate import actor_of
from robo_rlft.training.finetune import finetune
from robo_rlft.training.policies import load_policy
from robo_rlft.training.sources import LabellingSource
from tests.training.loops import settings

ALL = ("collect.keep=all", "collect.episodes=6", "collect.num_envs=4", "policy.execute=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a flow policy (`base`) and a residual on it (`residual`) that has moved away from it."""
    path = tmp_path_factory.mktemp("sources")
    scratch = ("run.checkpoint=none", "policy.action_normaliser=bounds", "policy.obs_normaliser=none")
    finetune(settings(path, *ALL, *scratch, "ppo.iterations=1", "ppo.actor_lr=0.01", f"run.dir={path / 'base'}"))
    words = ("residual.enabled=true", "residual.network.hidden=[16]", "ppo.actor_lr=0.05", "ppo.target_kl=0")
    finetune(settings(path, *ALL, *words, f"run.checkpoint={path / 'base'}", f"run.dir={path / 'residual'}"))
    return path


def recorded(folder: Path, data: Path, *words: str) -> Dataset:
    config: Config = settings(folder, *ALL, f"data.path={data}", *words)
    return Dataset.open(collect(config))


def seeded(dataset: Dataset) -> list[Episode]:
    episodes = [dataset.episode(i) for i in range(dataset.num_episodes)]
    return [e for e in episodes if e.seed is not None]


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_actions_of_a_residual_lead_through_the_recorded_episode(
    folder: Path, tmp_path: Path, deterministic: str
) -> None:
    words = (f"collect.source={folder / 'residual'}", f"collect.deterministic={deterministic}")
    dataset = recorded(folder, tmp_path / "x.zarr", *words)
    assert sorted(dataset.robot.observation) == ["policy"]
    assert dataset.robot.observation["policy"].shape == (11,)
    replays = seeded(dataset)
    assert len(replays) >= 3
    for episode in replays:
        env = make("Hopper", 1)
        obs, _ = env.reset(seed=[episode.seed or 0])
        for t in range(episode.num_steps):
            np.testing.assert_array_equal(obs["policy"][0].numpy(), episode.observation["policy"][t])
            obs, reward, *_ = env.step(torch.from_numpy(episode.action[t : t + 1]))
            assert float(reward[0]) == episode.reward[t]


def test_a_deterministic_residual_is_recorded_as_it_is_evaluated(folder: Path, tmp_path: Path) -> None:
    """By hand, one environment and one step at a time: base chunk, its noise, correction."""
    words = (f"collect.source={folder / 'residual'}", "collect.deterministic=true")
    policy, _ = load_policy(folder / "residual")
    assert isinstance(policy, ResidualPolicy)
    for episode in seeded(recorded(folder, tmp_path / "x.zarr", *words)):
        np.testing.assert_allclose(actions_by_hand(policy, episode), episode.action, atol=1e-5)


def actions_by_hand(policy: ResidualPolicy, episode: Episode) -> np.ndarray:
    """What the source would do in the states of an episode, whoever acted in it."""
    base, act, rows = policy.base, actor_of(policy), []
    chunk = torch.zeros(())
    for t, seen in enumerate(episode.observation["policy"][:-1]):
        newest = torch.from_numpy(seen)[None]
        if t % 3 == 0:
            noise = torch.from_numpy(episode_noise(episode.seed or 0, t // 3, base.event))[None, None]
            chunk = base.sample(base.encode({"policy": newest[:, None]}), noise, deterministic=True).action
        planned = chunk[:, t % 3]
        features = torch.cat([base.obs_affine("policy")(newest).clamp(-3, 3), planned, torch.tensor([[t % 3 / 3]])], -1)
        residual = act({"policy": features[:, None]}, torch.zeros(1, 1, 3))[:, 0]
        rows.append(base.to_robot((planned + 0.1 * residual).clamp(-1, 1))[0].detach().numpy())
    return np.stack(rows)


def test_labels_are_the_sources_actions_in_the_states_of_the_actor(folder: Path, tmp_path: Path) -> None:
    words = (f"collect.source={folder / 'residual'}", f"collect.actor={folder / 'base'}")
    policy, _ = load_policy(folder / "residual")
    assert isinstance(policy, ResidualPolicy)
    dataset = recorded(folder, tmp_path / "x.zarr", *words)
    itself = (f"collect.source={folder / 'base'}", f"collect.actor={folder / 'base'}")
    alone = recorded(folder, tmp_path / "y.zarr", *itself)
    by_seed = {e.seed: e for e in seeded(alone)}
    assert dataset.source["actor"] == str(folder / "base")
    for episode in seeded(dataset):
        np.testing.assert_allclose(actions_by_hand(policy, episode), episode.action, atol=1e-5)
        visited = by_seed[episode.seed]
        np.testing.assert_array_equal(episode.observation["policy"], visited.observation["policy"])
        assert np.abs(episode.action - visited.action).max() > 1e-3, "the labels are the actor's own actions"


def test_the_teachers_share_of_episodes_is_its_own(folder: Path, tmp_path: Path) -> None:
    both = (f"collect.source={folder / 'residual'}", f"collect.actor={folder / 'base'}")
    teacher = recorded(
        folder, tmp_path / "a.zarr", f"collect.source={folder / 'residual'}", "collect.deterministic=true"
    )
    taught = recorded(folder, tmp_path / "b.zarr", *both, "collect.teacher_share=1")
    own = {e.seed: e for e in seeded(teacher)}
    for episode in seeded(taught):
        np.testing.assert_array_equal(episode.observation["policy"], own[episode.seed].observation["policy"])


def test_a_share_of_the_episodes_is_a_share() -> None:
    """Counted over many starts: who acts is drawn anew for every episode and kept to its end."""
    source = LabellingSource(Says(1.0), Says(0.0), 0.3, seed=0)
    source.start({}, range(2000))
    own = source.act()[0][:, 0, 0]
    assert float(own.mean()) == pytest.approx(0.3, abs=0.04)
    done = torch.arange(2000) < 1000
    source.push(ended(done))
    later = source.act()[0][:, 0, 0]
    assert torch.equal(later[~done], own[~done])
    assert not torch.equal(later[done], own[done])
    assert float(later[done].mean()) == pytest.approx(0.3, abs=0.06)
    assert bool((source.act()[1] == 1.0).all()), "the labels are the teacher's in every episode"


class Says:
    """A source that always does the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def start(self, obs: Obs, seeds: Sequence[int]) -> None: ...

    def act(self) -> tuple[torch.Tensor, torch.Tensor]:
        action = torch.full((2000, 1, 1), self.value)
        return action, action

    def push(self, result: ChunkResult) -> None: ...


def ended(done: torch.Tensor) -> ChunkResult:
    no, reward = torch.zeros_like(done), torch.zeros(len(done), 1)
    return ChunkResult({}, reward, done, no, torch.ones_like(done, dtype=torch.long), {}, no)


def test_a_data_set_that_is_there_is_kept_and_the_setting_that_adds_to_it_named(folder: Path, tmp_path: Path) -> None:
    words = (f"data.path={tmp_path / 'x.zarr'}", f"collect.source={folder / 'base'}")
    kept = Dataset.open(collect(settings(folder, *ALL, *words))).num_episodes
    with pytest.raises(DataError, match=r"x\.zarr holds a data set: add to it with collect\.append=true"):
        collect(settings(folder, *ALL, *words))
    assert Dataset.open(tmp_path / "x.zarr").num_episodes == kept


def test_added_episodes_start_from_unused_seeds(folder: Path, tmp_path: Path) -> None:
    words = (f"collect.source={folder / 'base'}", "collect.num_envs=3", "collect.episodes=4")
    first = recorded(folder, tmp_path / "x.zarr", *words)
    assert {e.seed for e in seeded(first)} <= {SEED, SEED + 1, SEED + 2}
    second = recorded(folder, tmp_path / "x.zarr", *words, "collect.append=true")
    third = recorded(folder, tmp_path / "x.zarr", *words, "collect.append=true", "collect.num_envs=2")
    assert (second.num_episodes, third.num_episodes) == (8, 12)
    seeds = [e.seed for e in seeded(third)]
    assert len(seeds) == len(set(seeds))
    assert {s for s in seeds if s is not None} <= set(range(SEED, SEED + 8))
    starts = np.stack([third.episode(i).observation["policy"][0] for i in range(12)])
    assert len(np.unique(starts, axis=0)) == 12
    np.testing.assert_array_equal(third.episode(2).action, first.episode(2).action)
