"""One step of PPO on a chain at the recipes' shapes, beside the plain loop over K (`robo-rlft bench update`).

Both sides compute the same losses of the same minibatch and must get the same gradients. The plain loop evaluates the K
denoising steps one after another on the whole minibatch, in eager float32 at `highest` precision, with a plain AdamW.
Ours is the product's own step: pieces of the minibatch with the K steps folded into the batch, the matmul precision
chosen for this processor, a fused AdamW; a second row computes the networks in bfloat16, as rollouts then do too. The
limit is the time of the matrix products alone, in the shapes and precision of ours.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from robo_rlft.envs import make
from robo_rlft.learning import ppo
from robo_rlft.policies import Critic, Policy
from robo_rlft.training.bench.rows import BenchRow, print_table, write_json
from robo_rlft.training.config import Config
from robo_rlft.training.configure import compose
from robo_rlft.training.precision import choose_matmul_precision

RECIPES = ("reinflow/hopper", "reinflow/walker2d", "reinflow/arm_peg_insert")
PUBLISHED = ("recipe=reinflow/hopper", "policy.network.hidden=[512,512,512]", "ppo.minibatch=20000")
"""The shapes of ReinFlow's own experiments on the Gym tasks: rows of a large minibatch fall out of the caches."""
PEER = "plain loop"
SEED = 0
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.05}
"""Largest relative difference (2-norm) of actor or critic gradients: 100 and 10 times the precision's rounding."""

Step = Callable[[], object]


@dataclass(frozen=True)
class Side:
    """One way to do the step.

    Attributes:
        learner: its own copy of the networks, with its optimisers.
        config: settings of the update.
        precision: of float32 matrix products.
    """

    learner: ppo.Learner
    config: ppo.PPOConfig
    precision: str

    def step(self, batch: ppo.PPOBatch) -> None:
        """One minibatch through actor and critic, as `ppo.update` does it."""
        torch.set_float32_matmul_precision(self.precision)
        ppo.update(self.learner, batch, self.config, torch.Generator().manual_seed(SEED))

    def gradients(self, batch: ppo.PPOBatch) -> tuple[Tensor, Tensor]:
        """Gradients of actor and critic in a step of a copy, as one vector each."""
        other = replace(self, learner=copy.deepcopy(self.learner))
        other.step(batch)
        return _gradient(other.learner.policy), _gradient(other.learner.critic)


def run(
    json_path: str | Path | None = None, *, config: Config | None = None, rounds: int = 40, threads: int = 0
) -> list[BenchRow]:
    """Measure the recipes, print the table and write it as JSON if a path is given.

    Args:
        json_path: where to write the rows.
        config: measure this configuration only, if it comes from a recipe; else `RECIPES`.
        rounds: the sides take turns this often. The ratios are medians of those within each round, in processor
            seconds, since other programs on the machine disturb all sides alike.
        threads: of torch; 0 takes the recipe's.

    Raises:
        RuntimeError: the two sides' gradients differ by more than `TOLERANCE`.
    """
    cases = {config.recipe: config} if config and config.recipe else _cases()
    rows = []
    for name, each in cases.items():
        with threads_of(each, threads):
            rows += [_measure(f"update/{name}", each, precision, rounds) for precision in TOLERANCE]
    print_table(rows, "PPO steps per second")
    if json_path is not None:
        write_json(rows, json_path)
    return rows


def sides(config: Config, precision: str = "float32") -> tuple[Side, Side, ppo.PPOBatch]:
    """Ours with the networks in this precision, the plain loop, and a minibatch of random experience for both."""
    torch.manual_seed(SEED)
    env = make(config.env.id, 1, **config.env.params)
    robot = env.robot
    env.close()
    exact = replace(config.policy, chain=replace(config.policy.chain, precision="float32"))
    policy, critic = Policy(exact, robot), Critic(robot, config.ppo.critic_hidden)
    settings = replace(config.ppo, epochs=1, grad_clip=0.0, target_kl=0.0, bc_coef=0.0)
    batch = _experience(policy, critic, settings)
    slow = copy.deepcopy(policy)
    slow.score = partial(slow.score, fold_rows=1)  # pyright: ignore[reportAttributeAccessIssue]
    plain = Side(_learner(slow, critic, fused=False), replace(settings, fold_rows=0), "highest")
    policy.chain.config = replace(policy.chain.config, precision=precision)
    critic.precision = precision
    ours = Side(_learner(policy, critic, fused=True), settings, choose_matmul_precision("auto", torch.device("cpu")))
    return ours, plain, batch


def _cases() -> dict[str, Config]:
    return {name: compose([f"recipe={name}"]) for name in RECIPES} | {"published shapes": compose(PUBLISHED)}


def _measure(name: str, config: Config, precision: str, rounds: int) -> BenchRow:
    ours, plain, batch = sides(config, precision)
    error = max(map(_difference, ours.gradients(batch), plain.gradients(batch)))
    if error > TOLERANCE[precision]:
        raise RuntimeError(f"{name}: gradients in {precision} differ by {error:.1e}, at most {TOLERANCE[precision]:g}")
    steps: dict[str, Step] = {
        "ours": partial(ours.step, batch),
        PEER: partial(plain.step, batch),
        "products": _products(ours, len(batch)),
    }
    cpu, wall = _race(steps, max(3, min(rounds, rounds * 512 // len(batch))))
    seconds = {f"{side}_cpu_seconds": float(np.median(turns)) for side, turns in cpu.items()}
    return BenchRow(
        name=name if precision == "float32" else f"{name} {precision}",
        num_envs=len(batch),
        value=1 / float(np.median(wall["ours"])),
        unit="steps/s",
        limit_ratio=float(np.median(cpu["products"] / cpu["ours"])),
        peer_ratios={PEER: float(np.median(cpu[PEER] / cpu["ours"]))},
        detail=seconds
        | {
            "wall_ratio": float(np.median(wall[PEER] / wall["ours"])),
            "gradient_error": error,
            "threads": torch.get_num_threads(),
        },
    )


def _learner(policy: Policy, critic: Critic, *, fused: bool) -> ppo.Learner:
    critic = copy.deepcopy(critic)
    make_optimiser = partial(AdamW, lr=1e-5, weight_decay=0.0, fused=fused, foreach=False)
    return ppo.Learner(policy, critic, make_optimiser(policy.parameters()), make_optimiser(critic.parameters()))


def _experience(policy: Policy, critic: Critic, config: ppo.PPOConfig) -> ppo.PPOBatch:
    rows = config.minibatch
    obs = {
        key: torch.randn(rows, policy.config.obs_horizon, *policy.robot.observation[key].shape)
        for key in policy.config.obs_keys
    }
    with torch.no_grad():
        path = policy.sample(policy.encode(obs), policy.draw_noise(rows))
    executed = torch.full((rows,), policy.config.execute)
    newest = {critic.key: torch.randn(rows, *policy.robot.observation[critic.key].shape)}
    advantage, target, value = torch.randn(3, rows)
    log_prob = ppo.old_log_prob(policy, obs, path, executed, config)
    return ppo.PPOBatch(obs, newest, path, executed, log_prob, advantage, target, value)


def _products(side: Side, rows: int) -> Step:
    """The matrix products of one step of ours: forward, gradient of the input, gradient of the weights."""
    policy, critic = side.learner.policy, side.learner.critic
    fold = min(side.config.fold_rows or rows * policy.chain.scored_steps, rows * policy.chain.scored_steps)
    dtype = getattr(torch, policy.chain.config.precision)
    work = [_operands(layer, fold, dtype) for layer in (*_linears(policy.network), *_linears(policy.chain))]
    times = math.ceil(rows * policy.chain.scored_steps / fold)
    whole = [_operands(layer, rows, dtype) for layer in _linears(critic)]

    def step() -> None:
        torch.set_float32_matmul_precision(side.precision)
        for operands in (*work * times, *whole):
            _multiply(*operands)

    return step


@torch.no_grad()
def _multiply(x: Tensor, weight: Tensor, y: Tensor) -> None:
    torch.mm(x, weight.T)
    torch.mm(y, weight)
    torch.mm(y.T, x)


def _linears(module: nn.Module) -> Iterator[nn.Linear]:
    return (layer for layer in module.modules() if isinstance(layer, nn.Linear))


def _operands(layer: nn.Linear, rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(rows, layer.in_features).to(dtype),
        layer.weight.detach().to(dtype),
        torch.randn(rows, layer.out_features).to(dtype),
    )


def _race(steps: dict[str, Step], rounds: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Processor and wall seconds of every step in every round, in random order; the first round only warms up."""
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    generator = np.random.default_rng(SEED)
    for _ in range(rounds + 1):
        for name in generator.permutation(list(steps)).tolist():
            start = time.process_time(), time.perf_counter()
            steps[name]()
            turns[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
    table = {name: np.array(pairs[1:]) for name, pairs in turns.items()}
    return {k: v[:, 0] for k, v in table.items()}, {k: v[:, 1] for k, v in table.items()}


def _gradient(module: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@contextmanager
def threads_of(config: Config, count: int = 0) -> Iterator[None]:
    """Torch's threads (those given, else the configuration's) and precision; both as before afterwards."""
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(count or config.threads or len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision(precision)


__all__: Sequence[str] = ("PEER", "RECIPES", "Side", "run", "sides", "threads_of")
