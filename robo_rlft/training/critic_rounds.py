"""Learning to judge a frozen policy: rounds of its own experience, and a critic of chunks fitted to all of it."""

from __future__ import annotations

import time
from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import AdamW

from robo_rlft.learning import chunk_critic as learning
from robo_rlft.learning.chunk_critic import Experience
from robo_rlft.learning.common.schedule import cosine, set_lr
from robo_rlft.policies.condition import Cond
from robo_rlft.training.checkpoint import capture_rng, restore_rng
from robo_rlft.training.compare import plain
from robo_rlft.training.config import Config
from robo_rlft.training.evaluate import evaluate_in_training, figures_of
from robo_rlft.training.paths import source_path
from robo_rlft.training.policies import CRITIC, make_critic, policy_meta, searching, start_policy
from robo_rlft.training.progress import Progress, share_done
from robo_rlft.training.rollout import Collector, Rollout
from robo_rlft.training.run import Run
from robo_rlft.training.setup import make_env

SHOWN = ("rollout/return", "critic/explained_variance", "critic/ranking")
RANKED = 1000
"""Held-out chunks, evenly spread, whose pairs measure the ranking."""


class CriticTrainer:
    """One run of `algorithm=chunk_critic`: a policy that stays as it is, its critic, environments, counters.

    Args:
        config: everything.
        run: the open run folder.
    """

    def __init__(self, config: Config, run: Run) -> None:
        self.config, self.run = config, run
        device = torch.device(config.device)
        self.env = make_env(config, config.env.num_envs)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.shuffle = torch.Generator().manual_seed(config.seed + 1)
        self.policy = start_policy(config, source_path(config), self.env.robot).requires_grad_(False).to(device).eval()
        self.critic = make_critic(self.policy, plain(config.critic)).to(device)
        self.optimiser = AdamW(
            self.critic.parameters(), lr=config.critic.lr, weight_decay=config.critic.weight_decay, fused=True
        )
        self.collector = Collector(
            self.env,
            self.policy,
            config.critic.gamma,
            self.generator,
            seed=10_000 * (config.seed + 1),
            looks_ahead=True,
            curriculum=config.curriculum,
        )
        self.parts: list[Experience] = []
        self.round, self.env_steps, self.episodes, self.wall = 0, 0, 0, 0.0
        run.begin(self._resume)

    @property
    def fraction(self) -> float:
        """Share of the run that is done."""
        return share_done(self.config.run, self.round / self.config.critic.rounds, self.env_steps, self.wall)

    def train(self) -> None:
        """Collect and fit to the configured end."""
        critic, envs = self.config.critic, self.config.env.num_envs
        self.run.log(
            f"a critic of {source_path(self.config)} on {self.config.env.id}: {critic.members} networks, their "
            f"{critic.aggregate} counts, lambda = {critic.return_lambda:g}"
        )
        total = critic.rounds * critic.rollout * envs * self.config.policy.execute
        with Progress("critic", total, unit="env steps", done=self.env_steps) as progress:
            while self.fraction < 1:
                values = self.iterate()
                shown = {k.split("/")[1]: v for k, v in values.items() if k in SHOWN}
                progress.update(self.env_steps, {"round": self.round, **shown}, fraction=self.fraction)
        self._save()
        self.run.finish({"env_steps": self.env_steps, "iterations": self.round, "wall_seconds": self.wall})

    def iterate(self) -> dict[str, float]:
        """One round: collect, make targets anew, fit, measure on what is held out. Returns the round's figures."""
        start = time.perf_counter()
        watch = self.collector.watch
        watch.seconds.clear()
        rollout = self.collector.collect(self.policy, self.config.critic.rollout)
        self.parts.append(self._experience(rollout))
        with watch.time("update"):
            self._judge(rollout)
            info = self._fit(Experience.joined(self.parts))
        self.round += 1
        self.env_steps += rollout.env_steps
        self.episodes += len(rollout.episodes)
        self.wall += time.perf_counter() - start
        values = rollout.figures(watch.seconds, self.env.nan_resets) | {f"critic/{k}": v for k, v in info.items()}
        values |= self.collector.curriculum.figures()
        self.run.metrics.write(self.env_steps, values, wall=self.wall)
        self._due()
        return values

    @torch.no_grad()
    def _experience(self, rollout: Rollout) -> Experience:
        policy, execute, (time_, rows) = self.policy, self.config.policy.execute, rollout.reward.shape
        after = policy.encode(rollout.next_obs)
        then = policy.sample(after, policy.draw_noise(len(after), self.generator)).action
        columns = {
            "cond": policy.encode(rollout.obs).vector,
            "action": rollout.path.action[:, :execute],
            "next_cond": after.vector,
            "next_action": then[:, :execute],
        }
        return Experience(
            **{k: v.unflatten(0, (time_, rows)) for k, v in columns.items()},
            **{k: getattr(rollout, k) for k in ("reward", "executed", "terminated", "truncated")},
        )

    def _judge(self, rollout: Rollout) -> None:
        """Tell the curriculum how far the newest chunks' returns are from what the critic said of them."""
        if self.collector.curriculum.bandit is None:
            return
        settings, newest = self.config.critic, self.parts[-1]
        target = learning.targets(self.critic, newest, settings.gamma, settings.return_lambda)
        said = learning.values(self.critic, newest.cond, newest.action)
        self.collector.curriculum.learn(rollout.variant, target - said)

    def _fit(self, experience: Experience) -> dict[str, float]:
        settings, critic = self.config.critic, self.critic
        if self.round == 0:
            first = learning.targets(critic, experience, settings.gamma, settings.return_lambda)
            critic.scale.set(first.mean()[None], first.std()[None])
        target = learning.targets(critic, experience, settings.gamma, settings.return_lambda)
        learned = self.config.env.num_envs - round(self.config.env.num_envs * settings.validation)
        set_lr(self.optimiser, cosine(self.fraction, settings.lr, settings.lr_final))
        rows = [x[:, :learned].flatten(0, 1) for x in (experience.cond, experience.action, target)]
        losses = [self._update(*rows) for _ in range(settings.updates)]
        held = learning.values(critic, experience.cond[:, learned:], experience.action[:, learned:])
        return {"loss": float(torch.stack(losses).mean()), **_quality(held.detach(), target[:, learned:])}

    def _update(self, cond: Tensor, action: Tensor, target: Float[Tensor, " row"]) -> Float[Tensor, ""]:
        rows = torch.randint(len(target), (self.config.critic.minibatch,), generator=self.shuffle)
        loss = learning.critic_loss(self.critic, Cond(cond[rows]), action[rows], target[rows])
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def _due(self) -> None:
        limits = self.config.run
        if limits.eval_every and self.round % limits.eval_every == 0:
            self._evaluate()
        if self.round % limits.save_every == 0:
            self._save()

    def _evaluate(self) -> None:
        """Evaluate the search with the critic as it is, on the training's own seeds."""
        settings = self.config.evaluate
        search = settings.candidates or settings.best_of
        policy = searching(settings, self.policy, self.critic) if search else self.policy
        record = evaluate_in_training(self.config, policy, self.run.path, self.round)
        self.run.metrics.write(self.env_steps, figures_of(record), wall=self.wall)

    def _save(self) -> None:
        counters = {
            "iterations": self.round,
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "wall_seconds": self.wall,
        }
        described = {"seed": self.config.seed, "critic": plain(self.config.critic)}
        meta = policy_meta(self.policy, algorithm="chunk_critic", counters=counters, ema=False, **described)
        experience = Experience.joined(self.parts)
        state = {
            "optimiser": self.optimiser.state_dict(),
            "collector": self.collector.state_dict(),
            "experience": {f.name: getattr(experience, f.name) for f in fields(experience)},
            "rng": capture_rng({"explore": self.generator, "shuffle": self.shuffle}),
            "counters": counters,
        }
        weights = {"policy": self.policy.state_dict(), CRITIC: self.critic.state_dict()}
        self.run.checkpoints.save("last", weights, state, meta)
        self.run.metrics.sync()

    def _resume(self) -> None:
        checkpoint = self.run.checkpoints.load("last")
        state, counters = checkpoint.state, checkpoint.state["counters"]
        self.policy.load_state_dict(checkpoint.weights["policy"])
        self.critic.load_state_dict(checkpoint.weights[CRITIC])
        self.optimiser.load_state_dict(state["optimiser"])
        device = torch.device(self.config.device)
        self.parts = [Experience(**{k: v.to(device) for k, v in state["experience"].items()})]
        exact = self.collector.load_state_dict(state["collector"])
        if not exact:
            # What comes next does not follow these episodes: they end here as if the clock had cut them.
            self.parts[0].truncated[-1] |= ~self.parts[0].terminated[-1]
        restore_rng(state["rng"], {"explore": self.generator, "shuffle": self.shuffle})
        self.round, self.env_steps = counters["iterations"], counters["env_steps"]
        self.episodes, self.wall = counters["episodes"], counters["wall_seconds"]
        self.run.metrics.truncate_after(self.env_steps)
        self.run.log(f"continuing at round {self.round}" + ("" if exact else "; episodes start anew"))


def _quality(value: Float[Tensor, "time env"], target: Float[Tensor, "time env"]) -> dict[str, float]:
    """Of held-out chunks: the variance of the returns that is explained, and the pairs that are ranked rightly."""
    spread = torch.linspace(0, value.numel() - 1, min(RANKED, value.numel())).long()
    value, target = value.flatten(), target.flatten()
    return {
        "explained_variance": learning.explained_variance(value, target),
        "ranking": learning.ranking_accuracy(value[spread], target[spread]),
    }
