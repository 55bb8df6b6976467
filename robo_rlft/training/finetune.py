"""Fine-tuning (or training from scratch) by PPO on a chain: the verb `finetune`."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import numpy as np
import torch
from torch.optim import AdamW

from robo_rlft.errors import ConfigError
from robo_rlft.learning import ppo
from robo_rlft.learning.common.gae import gae
from robo_rlft.learning.common.group import group_advantage
from robo_rlft.learning.common.reward_scale import RewardScale
from robo_rlft.learning.common.running import RunningStats
from robo_rlft.learning.common.schedule import cosine, set_lr
from robo_rlft.policies import Critic, Policy
from robo_rlft.policies.precision import resolve
from robo_rlft.spec import RobotSpec
from robo_rlft.training.checkpoint import capture_rng, restore_rng
from robo_rlft.training.compiling import compile_networks
from robo_rlft.training.config import Config
from robo_rlft.training.critic_rounds import CriticTrainer
from robo_rlft.training.evaluate import evaluate_in_training, figures_of
from robo_rlft.training.paths import SCRATCH, run_path, source_path
from robo_rlft.training.policies import policy_meta, residual_policy, start_policy
from robo_rlft.training.progress import Progress, share_done
from robo_rlft.training.report import report_for
from robo_rlft.training.residual import acting_env
from robo_rlft.training.rollout import Collector, Rollout
from robo_rlft.training.run import Run
from robo_rlft.training.setup import make_env, prepare


def finetune(config: Config) -> Path:
    """Improve a policy by reinforcement learning, or learn to judge it; continues a run that was cut off.

    Returns:
        The run's folder, with checkpoints `last` and `best`.

    Raises:
        ConfigError: a chain without a likelihood, or settings that do not fit.
        CheckpointError: the configuration contradicts the checkpoint it starts from.
    """
    prepare(config)
    with Run.open(run_path(config, "finetune"), config, verb="finetune") as run:
        if run.finished:
            run.log(f"{run.path} has reached its end: raise {LENGTHS[config.algorithm]} to go on")
            return run.path
        trainer = ALGORITHMS[config.algorithm](config, run)
        try:
            trainer.train()
        finally:
            trainer.env.close()
        report_for(run.path)
        return run.path


class FineTuner:
    """One PPO run: policy, critic, environments, counters.

    Args:
        config: everything.
        run: the open run folder.
    """

    def __init__(self, config: Config, run: Run) -> None:
        self.config, self.run = config, run
        self.device = torch.device(config.device)
        env = make_env(config, config.env.num_envs)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.shuffle = torch.Generator().manual_seed(config.seed + 1)
        self.learner = make_learner(config, env.robot)
        self.env = acting_env(self.learner.policy, env)
        self.scratch = config.run.checkpoint == SCRATCH
        self.stats = RunningStats() if self.scratch and config.learner.obs_normaliser == "gaussian" else None
        self.scale = RewardScale(config.env.num_envs, config.ppo.gamma)
        self.iteration, self.env_steps, self.episodes, self.wall, self.best = 0, 0, 0, 0.0, float("-inf")
        self.recent: list[float] = []
        if config.ppo.advantage == "group" and self.env.fork_fidelity == "none":
            raise ConfigError(f"ppo.advantage=group needs environments to fork, which {config.env.id} cannot: use gae")
        self.collector = Collector(
            self.env,
            self.learner.policy,
            config.ppo.gamma,
            self.generator,
            seed=10_000 * (config.seed + 1),
            curriculum=config.curriculum,
        )
        run.begin(self._resume)

    def train(self) -> None:
        """Iterate until the configured end."""
        config, chain = self.config, self.learner.policy.chain
        self.run.log(
            f"fine-tuning {config.env.id}: chain {chain.config.name}, K = {chain.steps}, "
            f"{_objective(config)}, networks in {resolve(chain.config.precision, self.device)}"
        )
        per_round = config.ppo.rollout * config.env.num_envs * config.learner.execute
        with Progress(
            "fine-tune", config.ppo.iterations * per_round, unit="env steps", done=self.env_steps
        ) as progress:
            if self.iteration == 0 and config.run.eval_every:
                self._evaluate()
            while not self.ended:
                values = self.iterate()
                shown = {k.split("/")[1]: v for k, v in values.items() if k in SHOWN}
                progress.update(self.env_steps, {"round": self.iteration, **shown}, fraction=self.fraction)
        self._save("last")
        self.run.finish({"env_steps": self.env_steps, "iterations": self.iteration, "wall_seconds": self.wall})

    @property
    def fraction(self) -> float:
        """Share of the run that is done, by iterations, environment steps or wall time, whichever is further."""
        return share_done(self.config.run, self.iteration / self.config.ppo.iterations, self.env_steps, self.wall)

    @property
    def ended(self) -> bool:
        """The run has reached its end."""
        target = self.config.run.stop_return
        reached = target > 0 and len(self.recent) >= RECENT and float(np.mean(self.recent)) >= target
        return self.fraction >= 1.0 or reached

    def iterate(self) -> dict[str, float]:
        """One round: roll out, estimate advantages, update. Returns the round's figures."""
        start = time.perf_counter()
        config, learner = self.config.ppo, self.learner
        self.collector.watch.seconds.clear()
        self._schedules()
        learner.policy.eval()
        if config.advantage == "group":
            self.collector.fork(config.group)
        rollout = self.collector.collect(learner.policy, config.rollout)
        with self.collector.watch.time("update"):
            batch, info = self._batch(rollout)
            # Advantages of a group need no value function: there is nothing to learn or to wait for.
            critic = config.advantage == "gae"
            actor = not critic or self.iteration >= config.critic_warmup
            info |= ppo.update(learner, batch, config, self.shuffle, train_actor=actor, train_critic=critic)
            if self.stats is not None:
                self._renormalise(rollout)
        self.iteration += 1
        self.env_steps += rollout.env_steps
        self.episodes += len(rollout.episodes)
        self.wall += time.perf_counter() - start
        values = self._figures(rollout, info)
        self.run.metrics.write(self.env_steps, values, wall=self.wall)
        self._checkpoints()
        return values

    def _batch(self, rollout: Rollout) -> tuple[ppo.PPOBatch, dict[str, float]]:
        config, learner = self.config.ppo, self.learner
        shape = rollout.reward.shape
        done = rollout.terminated | rollout.truncated
        for t in range(shape[0]):
            self.scale.update(rollout.reward[t], rollout.executed[t], done[t])
        reward = rollout.reward / self.scale.divisor if config.reward_scale else rollout.reward
        with torch.no_grad():
            value = learner.critic(rollout.critic_obs)
            next_value = learner.critic(rollout.final_obs)
        advantage, target = gae(
            reward, value.view(shape), next_value.view(shape), rollout.executed, rollout.terminated, rollout.truncated,
            config.gamma, config.gae_lambda,
        )  # fmt: skip
        executed = rollout.executed.flatten()
        if config.advantage == "group":
            advantage = group_advantage(reward, rollout.executed, done, config.gamma, config.group)
        flat = advantage.flatten()
        self.collector.curriculum.learn(rollout.variant, flat)
        batch = ppo.PPOBatch(
            obs=rollout.obs,
            critic_obs=rollout.critic_obs,
            path=rollout.path,
            executed=executed,
            log_prob=self._log_prob(rollout, executed),
            advantage=ppo.normalise(flat) if config.normalise_advantage and config.advantage == "gae" else flat,
            target=target.flatten(),
            value=value,
        )
        return batch, {"advantage_std": float(flat.std()), "value_mean": float(value.mean())}

    def _log_prob(self, rollout: Rollout, executed: torch.Tensor) -> torch.Tensor:
        if self.config.ppo.objective == "awr":
            return torch.zeros(len(executed), device=self.device)
        return ppo.old_log_prob(self.learner.policy, rollout.obs, rollout.path, executed, self.config.ppo)

    def _schedules(self) -> None:
        config, fraction = self.config.ppo, self.fraction
        warmup = config.lr_warmup / max(config.iterations, 1)
        set_lr(self.learner.actor_optimiser, cosine(fraction, config.actor_lr, config.actor_lr_final, warmup))
        set_lr(self.learner.critic_optimiser, cosine(fraction, config.critic_lr, config.critic_lr_final))
        self.learner.policy.chain.set_progress(fraction, config.std_hold, config.std_final)

    def _renormalise(self, rollout: Rollout) -> None:
        """From scratch there is no data set: the observation statistics grow with experience, between updates."""
        assert self.stats is not None
        policy, critic = self.learner.policy, self.learner.critic
        for key, value in rollout.critic_obs.items():
            self.stats.update(key, value)
        policy.fit_observation(self.stats.statistics())
        mean, std = self.stats.mean_std(critic.key)
        critic.norm.set(mean, std)

    def _figures(self, rollout: Rollout, info: dict[str, float]) -> dict[str, float]:
        self.recent = (self.recent + [e[0] for e in rollout.episodes])[-RECENT:]
        figures = rollout.figures(self.collector.watch.seconds, self.env.nan_resets)
        return figures | {f"ppo/{k}": v for k, v in info.items()} | self.collector.curriculum.figures()

    def _checkpoints(self) -> None:
        limits = self.config.run
        if limits.eval_every and self.iteration % limits.eval_every == 0 and self._evaluate():
            self._save("best")
        if self.iteration % limits.save_every == 0:
            self._save("last")

    def _evaluate(self) -> bool:
        """Evaluate on the training's own seeds. Returns whether it is the best so far."""
        record = evaluate_in_training(self.config, self.learner.policy, self.run.path, self.iteration)
        figures = figures_of(record)
        self.run.metrics.write(self.env_steps, figures, wall=self.wall)
        better = figures["evaluation/score"] > self.best
        self.best = max(self.best, figures["evaluation/score"])
        return better

    def _save(self, name: str) -> None:
        learner = self.learner
        counters = {
            "iterations": self.iteration,
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "wall_seconds": self.wall,
        }
        meta = policy_meta(learner.policy, algorithm="ppo", counters=counters, ema=False, seed=self.config.seed)
        weights = {"policy": learner.policy.state_dict(), "critic": learner.critic.state_dict()}
        if learner.reference is not None:
            weights["reference"] = learner.reference.state_dict()
        state = {
            "actor_optimiser": learner.actor_optimiser.state_dict(),
            "critic_optimiser": learner.critic_optimiser.state_dict(),
            "collector": self.collector.state_dict(),
            "scale": self.scale.state_dict(),
            "stats": self.stats.state_dict() if self.stats else {},
            "rng": capture_rng({"explore": self.generator, "shuffle": self.shuffle}),
            "counters": {**counters, "best": self.best, "recent": self.recent},
        }
        self.run.checkpoints.save("best" if name == "best" else "last", weights, state, meta)
        self.run.metrics.sync()

    def _resume(self) -> None:
        checkpoint = self.run.checkpoints.load("last")
        learner, state = self.learner, checkpoint.state
        learner.policy.load_state_dict(checkpoint.weights["policy"])
        learner.critic.load_state_dict(checkpoint.weights["critic"])
        if learner.reference is not None:
            learner.reference.load_state_dict(checkpoint.weights["reference"])
        learner.actor_optimiser.load_state_dict(state["actor_optimiser"])
        learner.critic_optimiser.load_state_dict(state["critic_optimiser"])
        self.scale.load_state_dict(state["scale"])
        if self.stats is not None:
            self.stats.load_state_dict(state["stats"])
        exact = self.collector.load_state_dict(state["collector"])
        restore_rng(state["rng"], {"explore": self.generator, "shuffle": self.shuffle})
        counters = state["counters"]
        self.iteration, self.env_steps, self.episodes = (
            counters["iterations"],
            counters["env_steps"],
            counters["episodes"],
        )
        self.wall, self.best, self.recent = counters["wall_seconds"], counters["best"], list(counters["recent"])
        self.run.metrics.truncate_after(self.env_steps)
        self.run.log(f"continuing at iteration {self.iteration}" + ("" if exact else "; episodes start anew"))


ALGORITHMS = {"ppo": FineTuner, "chunk_critic": CriticTrainer}
LENGTHS = {"ppo": "ppo.iterations", "chunk_critic": "critic.rounds"}
"""The setting that says how long each lasts."""
SHOWN = ("rollout/return", "rollout/success", "ppo/kl")
ACTIONS = {"chain": "the whole path", "steps": "each denoising step"}
RECENT = 200
"""Episodes over which `run.stop_return` is judged."""


def _objective(config: Config) -> str:
    ppo = config.ppo
    if ppo.objective == "awr":
        return f"advantage-weighted regression, temperature = {ppo.awr_temperature:g}, weight <= {ppo.awr_weight_max:g}"
    return f"action = {ACTIONS[ppo.mdp]}, ratio = {ppo.aggregation} over its entries, clip = {ppo.clip:g}"


def make_learner(config: Config, robot: RobotSpec) -> ppo.Learner:
    """Policy (from its checkpoint, or new), critic, optimisers and the frozen reference.

    Raises:
        ConfigError: a chain without a likelihood, or `compile=true` without a compiler.
    """
    device = torch.device(config.device)
    policy = _starting_policy(config, robot)
    if not policy.chain.has_likelihood and config.ppo.objective == "surrogate":
        raise ConfigError(
            f"policy.chain.name={config.learner.chain.name} has no likelihood, fine-tuning needs one: "
            "use policy.chain.name=reinflow"
        )
    critic = Critic(policy.robot, config.ppo.critic_hidden, policy.config.obs_clip, policy.config.chain.precision)
    if critic.key in policy.config.obs_keys:
        critic.norm.load_state_dict(policy.obs_affine(critic.key).state_dict())
    reference = copy.deepcopy(policy).requires_grad_(False) if config.ppo.bc_coef > 0 else None
    policy, critic = policy.to(device), critic.to(device)
    policy.network.requires_grad_(not policy.chain.freezes_network)
    actor = [p for p in policy.parameters() if p.requires_grad]
    if config.compile:
        compile_networks(policy, critic, device)
    return ppo.Learner(
        policy,
        critic,
        AdamW(actor, lr=config.ppo.actor_lr, weight_decay=0.0, fused=True),
        AdamW(critic.parameters(), lr=config.ppo.critic_lr, weight_decay=0.0, fused=True),
        reference.to(device) if reference is not None else None,
    )


def _starting_policy(config: Config, robot: RobotSpec) -> Policy:
    if config.residual.enabled:
        return residual_policy(config, source_path(config), robot)
    if config.run.checkpoint != SCRATCH:
        return start_policy(config, source_path(config), robot)
    policy = Policy(config.policy, robot)
    policy.fit_action({})
    if config.policy.obs_normaliser != "gaussian":
        policy.fit_observation({})
    return policy


__all__ = ["FineTuner", "finetune", "make_learner"]
