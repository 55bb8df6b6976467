"""A residual on a frozen policy: it starts as that policy, every row has its own chunk, nothing outlives a reset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robo_rlft.envs import conformance
from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.envs.mujoco.task import Observation
from robo_rlft.envs.mujoco.tasks import hopper
from robo_rlft.errors import CheckpointError, ConfigError, SpecError
from robo_rlft.noise import episode_noise
from robo_rlft.policies import Critic, Policy
from robo_rlft.policies.residual import ResidualPolicy, residual_robot
from robo_rlft.training import finetune as finetuning
from robo_rlft.training.checkpoint import load_for
from robo_rlft.training.config import Config
from robo_rlft.training.evaluate import evaluate_policy
from robo_rlft.training.metrics import read
from robo_rlft.training.policies import load_policy, residual_policy
from robo_rlft.training.residual import ResidualEnv
from robo_rlft.training.setup import make_env
from tests.training.loops import settings
from tests.training.test_loops import StoppedError, assert_same_run

CHAINS = {
    "euler": ("policy.chain.name=euler",),
    "reinflow": ("policy.chain.name=reinflow",),
    "ddim": ("policy.chain.name=ddim", "policy.chain.levels=4"),
    "gaussian": ("policy.chain.name=gaussian",),
}
FINETUNE = ("residual.enabled=true", "residual.network.hidden=[16]", "ppo.aggregation=sum", "ppo.clip=0.2")


def make_policy(config: Config, robot_of: BatchEnv, seed: int = 0) -> Policy:
    """A policy with random weights, large enough to move the robot."""
    torch.manual_seed(seed)
    policy = Policy(config.policy, robot_of.robot)
    width = policy.cond_width // config.policy.obs_horizon
    data = {"mean": np.zeros(width), "std": np.ones(width), "min": -np.ones(width), "max": np.ones(width)}
    policy.fit_observation({"policy": data})
    policy.fit_action({"action": {"min": -np.ones(policy.event[1]), "max": 0.8 * np.ones(policy.event[1])}})
    with torch.no_grad():
        for weight in policy.network.parameters():
            weight.mul_(2.0)
    return policy.eval()


def make_residual(config: Config, env: BatchEnv, size: float = 0.0) -> ResidualPolicy:
    """A residual on a random base; its last layer has weights of the given size."""
    base = make_policy(config, env)
    policy = ResidualPolicy(config.residual.policy, base, residual_robot(env.robot, base), 0.1)
    with torch.no_grad():
        for weight in policy.network.parameters():
            weight.copy_(torch.randn_like(weight) * size) if size else None
    return policy.eval()


@pytest.mark.parametrize("horizon", [1, 2])
@pytest.mark.parametrize("chain", CHAINS)
def test_an_untrained_residual_is_its_base_bit_for_bit(chain: str, horizon: int, tmp_path: Path) -> None:
    words = (*CHAINS[chain], "policy.execute=3", f"policy.obs_horizon={horizon}")
    config = settings(tmp_path, *words, "evaluate.episodes=7", "evaluate.num_envs=3")
    env = make_env(config, 1)
    policy = make_residual(config, env)
    alone, corrected = (
        evaluate_policy(config, p, name="x", folder=tmp_path, videos=False) for p in (policy.base, policy)
    )
    assert alone["per_seed"] == corrected["per_seed"]
    assert [row["seed"] for row in alone["per_seed"]] == list(range(1_000_000, 1_000_007))
    assert chain == "gaussian" or len({row["length"] for row in alone["per_seed"]}) > 1, "nothing ends apart"


def test_corrections_change_the_episodes(tmp_path: Path) -> None:
    config = settings(tmp_path)
    policy = make_residual(config, make_env(config, 1), size=1.0)
    alone, corrected = (
        evaluate_policy(config, p, name="x", folder=tmp_path, videos=False) for p in (policy.base, policy)
    )
    assert alone["per_seed"] != corrected["per_seed"]


def test_every_environment_plays_its_own_chunk_and_forgets_it_at_a_reset(tmp_path: Path) -> None:
    """Against each row played by hand: place, chunk, noise and observation, through resets at different times."""
    config = settings(tmp_path, "policy.chain.name=euler", "policy.execute=3")
    env = make_env(config, 5)
    policy = make_residual(config, env)
    played = ResidualEnv(env, policy)
    obs, _ = played.reset(seed=[10, 11, 12, 13, 14])
    generator = np.random.default_rng(0)
    place, begun, seeds = np.zeros(5, int), np.ones(5, int), [10, 11, 12, 13, 14]
    frames = {"policy": env.reset(seed=seeds)[0]["policy"].unsqueeze(1)}
    chunks = plan(policy.base, frames["policy"], [episode_noise(s, 0, policy.base.event) for s in seeds])
    phases, resets = set(), 0
    for _ in range(60):
        np.testing.assert_allclose(played.player.chunk.numpy(), chunks.numpy(), atol=1e-6)
        width = len(env.robot.action.names)
        phases.add(tuple(place))
        expected = torch.stack([chunks[i, place[i]] for i in range(5)])
        assert torch.equal(obs["policy"][:, -1 - width : -1], played.player.chunk[range(5), place])
        np.testing.assert_allclose(obs["policy"][:, -1 - width : -1].numpy(), expected.numpy(), atol=1e-6)
        np.testing.assert_allclose(obs["policy"][:, -1].numpy(), place / 3, rtol=1e-6)
        residual = torch.from_numpy(generator.uniform(-1, 1, (5, width)).astype(np.float32))
        result = played.step_chunk(residual.unsqueeze(1))
        obs, place = result.obs, place + 1
        for i in range(5):
            if bool(result.done[i]):
                place[i], begun[i], resets = 0, 0, resets + 1
                seeds[i] = played.player._seed(i)
            if place[i] == 3 or begun[i] == 0:
                place[i] = 0
                newest = played.player.newest["policy"][i][None, None]
                chunks[i] = plan(policy.base, newest, [episode_noise(seeds[i], begun[i], policy.base.event)])[0]
                begun[i] += 1
    assert resets > 5
    assert any(len(set(row)) > 1 for row in phases), "all environments were at the same place all the time"
    assert len(set(seeds)) == 5


def plan(base: Policy, obs: torch.Tensor, noise: list[np.ndarray]) -> torch.Tensor:
    with torch.no_grad():
        start = torch.from_numpy(np.stack(noise))[None]
        return base.sample(base.encode({"policy": obs}), start, deterministic=True).action.clone()


def test_the_value_of_a_cut_episode_is_that_of_the_chunk_it_would_have_begun(tmp_path: Path) -> None:
    """Episodes are cut after six steps, when the second chunk of three is used up."""
    config = settings(tmp_path, "policy.chain.name=euler", "policy.execute=3", "env.params.max_episode_steps=6")
    env = make_env(config, 4)
    policy = make_residual(config, env)
    played = ResidualEnv(env, policy)
    played.reset(seed=[3, 4, 5, 6])
    result = [played.step_chunk(torch.zeros(4, 1, 3)) for _ in range(6)][-1]
    assert bool(result.truncated.all())
    final = result.final_obs["policy"]
    seen = policy.base.obs_affine("policy").inverse(final[:, :11])
    inside = (final[:, :11].abs() < 3).all(1)
    assert bool(inside.any())
    expected = plan(policy.base, seen[:, None], [episode_noise(s, 2, policy.base.event) for s in (3, 4, 5, 6)])[:, 0]
    np.testing.assert_allclose(final[inside, 11:14].numpy(), expected[inside].numpy(), atol=1e-4)
    assert bool((final[:, 14] == 0).all())
    fresh = result.obs["policy"]
    assert not torch.equal(fresh[:, 11:14], final[:, 11:14])


def test_a_privileged_group_goes_to_the_value_function_alone(tmp_path: Path) -> None:
    secret = Observation(
        "secret", lambda xp, state, params: 7.0 * state.data["qpos"][:, :2], ("a", "b"), group="critic"
    )
    env = MujocoEnv(replace(hopper.TASK, observations=(*hopper.TASK.observations, secret)), 3)
    config = settings(tmp_path, "policy.execute=3")
    policy = make_residual(config, env)
    obs, _ = ResidualEnv(env, policy).reset(seed=0)
    critic = Critic(policy.robot, [8])
    assert policy.robot.observation["critic"].names[-2:] == ("critic_a", "critic_b")
    assert torch.equal(obs["critic"][:, :-2], obs["policy"])
    np.testing.assert_allclose(obs["critic"][:, -2:], 7.0 * env.simulation.data["qpos"][:, :2], rtol=1e-5)
    assert critic(obs).shape == (3,)
    assert policy.act({"policy": obs["policy"][:, None]}).shape == (3, 1, 3)


@pytest.mark.parametrize("rule", conformance.RULES, ids=lambda rule: rule.__name__)
def test_it_is_an_environment_like_any_other(rule: conformance.Rule, tmp_path: Path) -> None:
    config = settings(tmp_path, "policy.chain.name=euler", "policy.execute=3", "policy.obs_horizon=2")
    policy = make_residual(config, make_env(config, 1))
    conformance.follow(rule, lambda n: ResidualEnv(make_env(config, n), policy))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two bases: a flow that PPO trained from scratch, and a Gaussian policy."""
    path = tmp_path_factory.mktemp("residual")
    scratch = ("run.checkpoint=none", "policy.action_normaliser=bounds", "policy.obs_normaliser=none")
    for chain in ("reinflow", "gaussian"):
        words = (*scratch, f"policy.chain.name={chain}", "ppo.iterations=1", f"run.dir={path / chain}")
        finetuning.finetune(settings(path, *words))
    return path


def tuned(folder: Path, run: Path, *words: str, base: str = "reinflow") -> Config:
    return settings(folder, *FINETUNE, f"run.checkpoint={folder / base}", f"run.dir={run}", *words)


@pytest.mark.parametrize("base", ["reinflow", "gaussian"])
def test_the_residual_learns_and_the_base_stays(folder: Path, tmp_path: Path, base: str) -> None:
    finetuning.finetune(tuned(folder, tmp_path / "run", base=base))
    rows = read(tmp_path / "run")
    assert rows["ppo/first_ratio_error"].max() <= 1e-5
    assert rows["ppo/actor_grad_norm"].min() > 0
    before, after = load_for(folder / base).weights["policy"], load_for(tmp_path / "run").weights["policy"]
    for key, value in before.items():
        assert torch.equal(value, after[f"base.{key}"]), key
    assert after["network.net.2.weight"].abs().max() > 0
    assert after["chain.log_std"].exp().unique().item() == pytest.approx(np.exp(-1.0), rel=1e-3)


def test_before_the_first_step_a_run_evaluates_as_its_base(folder: Path, tmp_path: Path) -> None:
    words = ("ppo.actor_lr=0", "ppo.actor_lr_final=0", "ppo.iterations=1")
    config = tuned(folder, tmp_path / "run", *words)
    finetuning.finetune(config)
    policy, meta = load_policy(tmp_path / "run")
    assert isinstance(policy, ResidualPolicy)
    assert meta["residual"]["base"]["policy"]["chain"]["name"] == "reinflow"
    base, _ = load_policy(folder / "reinflow")
    records = [evaluate_policy(config, p, name="x", folder=tmp_path, videos=False) for p in (policy, base)]
    assert records[0]["per_seed"] == records[1]["per_seed"]


def test_a_checkpoint_needs_neither_its_base_nor_its_settings(folder: Path, tmp_path: Path) -> None:
    """What it is stands in the checkpoint: a configuration without a residual reads it all the same."""
    finetuning.finetune(tuned(folder, tmp_path / "run", "ppo.actor_lr=0.01"))
    policy, _ = load_policy(tmp_path / "run" / "checkpoints" / "last")
    assert isinstance(policy, ResidualPolicy)
    record = evaluate_policy(settings(folder), policy, name="x", folder=tmp_path, videos=False)
    base = evaluate_policy(settings(folder), policy.base, name="x", folder=tmp_path, videos=False)
    assert record["per_seed"] != base["per_seed"]


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_run_that_was_cut_off_ends_in_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finetuning.finetune(tuned(folder, whole))
    iterate = finetuning.FineTuner.iterate

    def stop_after(trainer: finetuning.FineTuner) -> dict[str, float]:
        if trainer.iteration == rounds:
            raise StoppedError
        return iterate(trainer)

    monkeypatch.setattr(finetuning.FineTuner, "iterate", stop_after)
    with pytest.raises(StoppedError):
        finetuning.finetune(tuned(folder, cut))
    monkeypatch.undo()
    finetuning.finetune(tuned(folder, cut))
    assert_same_run(whole, cut)


def test_futures_can_be_forked(folder: Path, tmp_path: Path) -> None:
    finetuning.finetune(tuned(folder, tmp_path / "run", "ppo.advantage=group", "ppo.group=2"))
    assert read(tmp_path / "run")["ppo/first_ratio_error"].max() <= 1e-5


def test_what_cannot_be_a_base_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a policy to correct"):
        finetuning.finetune(settings(folder, *FINETUNE, "run.checkpoint=none", f"run.dir={tmp_path / 'a'}"))
    with pytest.raises(SpecError, match="observation 'policy'"):
        finetuning.finetune(tuned(folder, tmp_path / "b", "env.id=HalfCheetah"))
    finetuning.finetune(tuned(folder, tmp_path / "run", "ppo.iterations=1"))
    on_top = replace(tuned(folder, tmp_path / "c"))
    on_top.run.checkpoint = str(tmp_path / "run")
    with pytest.raises(ConfigError, match="cannot be the base"):
        finetuning.finetune(on_top)
    as_one = settings(folder, f"run.checkpoint={tmp_path / 'run'}", f"run.dir={tmp_path / 'd'}")
    with pytest.raises(CheckpointError, match="residual on a frozen policy"):
        finetuning.finetune(as_one)
    env = make_env(as_one, 1)
    assert isinstance(residual_policy(tuned(folder, tmp_path / "e"), folder / "reinflow", env.robot), ResidualPolicy)
