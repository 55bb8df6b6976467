"""Behaviour cloning on demonstrations: the verb `pretrain`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from robo_rlft.data import Batch, Dataset, Windows, compute_stats
from robo_rlft.errors import DataError
from robo_rlft.learning.bc import bc_loss, sample_time
from robo_rlft.learning.common.ema import EMA
from robo_rlft.learning.common.schedule import cosine, set_lr
from robo_rlft.policies import Policy
from robo_rlft.training.checkpoint import capture_rng, load_for, restore_rng
from robo_rlft.training.config import Config
from robo_rlft.training.paths import data_path, run_path
from robo_rlft.training.policies import policy_meta
from robo_rlft.training.progress import Progress
from robo_rlft.training.report import report_for
from robo_rlft.training.run import Run
from robo_rlft.training.setup import prepare

LOG_EVERY = 100
"""Optimiser steps between two rows of metrics."""


def pretrain(config: Config) -> Path:
    """Train a policy to imitate a data set; continues a run that was cut off.

    With `run.checkpoint` it starts from those weights and normalisers (longer cloning of the same data).

    Returns:
        The run's folder. The checkpoint holds the moving average of the weights.

    Raises:
        DataError: a damaged or too small data set.
    """
    prepare(config)
    dataset = Dataset.open(data_path(config))
    with Run.open(run_path(config, "pretrain"), config, verb="pretrain") as run:
        if run.finished:
            run.log(f"{run.path} has reached its end: raise bc.steps to go on")
            return run.path
        Cloner(config, run, dataset).train()
        report_for(run.path)
        return run.path


class Cloner:
    """One behaviour-cloning run.

    Args:
        config: everything.
        run: the open run folder.
        dataset: demonstrations.
    """

    def __init__(self, config: Config, run: Run, dataset: Dataset) -> None:
        self.config, self.run, self.dataset = config, run, dataset
        self.device = torch.device(config.device)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        policy = Policy(config.policy, dataset.robot)
        policy.fit_normaliser({k: vars(s) for k, s in compute_stats(dataset, policy.vector_keys).items()})
        self.policy = policy.to(self.device)
        if config.run.checkpoint:
            self.policy.load_state_dict(load_for(config.run.checkpoint).weights["policy"])
        self.ema = EMA(self.policy, config.bc.ema_decay)
        self.optimiser = AdamW(
            self.policy.parameters(), lr=config.bc.lr, weight_decay=config.bc.weight_decay, fused=True
        )
        train, held_out = _split(dataset, config)
        self.windows = self._windows(train, config.bc.batch_size)
        self.held_out = self._windows(held_out, 1024) if held_out else None
        self.step, self.wall, self.best = 0, 0.0, float("inf")
        run.begin(self._resume)

    @property
    def fraction(self) -> float:
        """Share of the run that is done."""
        limit = self.config.bc.wall_seconds
        return min(self.wall / limit if limit > 0 else self.step / self.config.bc.steps, 1.0)

    def train(self) -> None:
        """Train to the configured end."""
        config, batches, losses = self.config, self.windows.stream(), []
        self.run.log(f"behaviour cloning of {self.dataset.num_episodes} episodes, {self.windows.num_windows} windows")
        with Progress("pretrain", config.bc.steps, unit="updates", done=self.step) as progress:
            while self.fraction < 1:
                start = time.perf_counter()
                losses.append(self._update(batches))
                self.wall += time.perf_counter() - start
                if self.step % LOG_EVERY == 0 or self.fraction >= 1:
                    progress.update(self.step, self._log(losses), fraction=self.fraction)
                    losses = []
                if self.step % (1000 * config.run.save_every) == 0:
                    self._save()
        self._save()
        self.run.finish({"updates": self.step, "wall_seconds": self.wall})

    def _update(self, batches: Iterator[Batch]) -> torch.Tensor:
        bc = self.config.bc
        set_lr(self.optimiser, cosine(self.fraction, bc.lr, bc.lr_final, bc.warmup / max(bc.steps, 1)))
        batch = next(batches)
        batch = replace(batch, observation=self.policy.augment(batch.observation, self.generator))
        loss = self._loss(self.policy, batch, self.generator)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if bc.grad_clip > 0:
            clip_grad_norm_(self.policy.parameters(), bc.grad_clip)
        self.optimiser.step()
        self.ema.update(self.policy)
        self.step += 1
        return loss.detach()

    def _loss(self, policy: Policy, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        rows = len(batch.action)
        noise = torch.randn(batch.action.shape, generator=generator, device=self.device)
        t = sample_time(rows, self.config.bc.time_sampling, generator, self.device)
        u = torch.rand(rows, generator=generator, device=self.device)
        return bc_loss(policy, batch.observation, batch.action, batch.mask, noise, t, u)

    def _log(self, losses: list[torch.Tensor]) -> dict[str, float]:
        values = {"bc/loss": float(torch.stack(losses).mean()), "bc/lr": self.optimiser.param_groups[0]["lr"]}
        if not np.isfinite(values["bc/loss"]):
            raise DataError(
                f"the loss is {values['bc/loss']} at update {self.step}: lower bc.lr, or check the data with "
                f"robo-rlft doctor data={data_path(self.config)}"
            )
        if self.held_out is not None and self.step % (10 * LOG_EVERY) == 0:
            values["bc/validation"] = self._validate()
        self.run.metrics.write(self.step, values, wall=self.wall)
        return {"loss": values["bc/loss"]}

    @torch.no_grad()
    def _validate(self) -> float:
        assert self.held_out is not None
        generator = torch.Generator(self.device).manual_seed(0)
        return float(torch.stack([self._loss(self.ema.average, b, generator) for b in self.held_out]).mean())

    def _windows(self, episodes: list[int], batch_size: int) -> Windows:
        policy = self.config.policy
        return Windows(
            self.dataset, policy.obs_horizon, policy.chunk, batch_size, self.config.seed,
            device=self.config.device, keys=policy.obs_keys, episodes=episodes,
        )  # fmt: skip

    def _save(self) -> None:
        counters = {"updates": self.step, "wall_seconds": self.wall}
        ema = self.config.bc.ema_decay > 0
        source = {"data": str(data_path(self.config)), "data_hash": self.dataset.content_hash, "seed": self.config.seed}
        meta = policy_meta(self.policy, algorithm="bc", counters=counters, ema=ema, **source)
        averaged = self.ema.average if ema else self.policy
        state = {
            "optimiser": self.optimiser.state_dict(),
            "windows": self.windows.state_dict(),
            "ema_updates": self.ema.updates,
            "rng": capture_rng({"own": self.generator}),
            "counters": counters,
        }
        weights = {"policy": averaged.state_dict(), "trained": self.policy.state_dict()}
        self.run.checkpoints.save("last", weights, state, meta)
        self.run.metrics.sync()

    def _resume(self) -> None:
        checkpoint = self.run.checkpoints.load("last")
        state = checkpoint.state
        self.policy.load_state_dict(checkpoint.weights["trained"])
        self.ema.average.load_state_dict(checkpoint.weights["policy"])
        self.ema.updates = state["ema_updates"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.windows.load_state_dict(state["windows"])
        restore_rng(state["rng"], {"own": self.generator})
        self.step, self.wall = state["counters"]["updates"], state["counters"]["wall_seconds"]
        self.run.metrics.truncate_after(self.step)
        self.run.log(f"continuing at update {self.step}")


def _split(dataset: Dataset, config: Config) -> tuple[list[int], list[int]]:
    """Episodes to train on, and every so many-th held out."""
    count = min(config.data.episodes or dataset.num_episodes, dataset.num_episodes)
    held = round(count * config.bc.validation)
    if count - held < 1:
        raise DataError(
            f"{data_path(config)} has {count} episodes: too few to hold out {config.bc.validation:.0%} for validation"
        )
    chosen = {int(i) for i in np.linspace(0, count - 1, held).round()} if held else set()
    return [i for i in range(count) if i not in chosen], sorted(chosen)
