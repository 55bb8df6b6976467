"""Small policies with lively weights, and fields whose flow is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robo_rlft.learning.bc import bc_loss
from robo_rlft.policies import ChainConfig, Cond, NetworkConfig, Policy, PolicyConfig
from robo_rlft.spec import ArraySpec, RobotSpec

OBS, ACTION = 3, 2
CHAINS = ("reinflow", "gaussian", "flow_sde", "flow_noise", "shortcut", "mean_flow", "ddpm", "ddim")
"""Chains with a likelihood."""
NETWORKS = ("mlp", "unet1d", "transformer")


def robot(obs: int = OBS, action: int = ACTION, critic: int = 0) -> RobotSpec:
    groups = {"policy": ArraySpec((obs,))} | ({"critic": ArraySpec((critic,))} if critic else {})
    bounds = ArraySpec((action,), low=(-2.0,) * action, high=(4.0,) * action)
    return RobotSpec("Toy", groups, bounds, rate_hz=20.0, max_episode_steps=100)


def policy(
    chain: str = "reinflow",
    network: str = "mlp",
    *,
    steps: int = 4,
    chunk: int = 4,
    obs_horizon: int = 1,
    dtype: torch.dtype = torch.float32,
    spec: RobotSpec | None = None,
    hidden: tuple[int, ...] = (24, 24),
    lively: float = 0.3,
    **chain_settings: Any,
) -> Policy:
    """A small policy whose velocity, noise and std depend visibly on all their inputs."""
    torch.manual_seed(0)
    config = PolicyConfig(
        network=NetworkConfig(name=network, hidden=list(hidden), time_dim=8, width=8, depth=2, heads=2, kernel=3),
        chain=ChainConfig(name=chain, steps=steps, noise_hidden=[16], **chain_settings),
        chunk=chunk,
        execute=chunk,
        obs_horizon=obs_horizon,
        action_normaliser="bounds",
    )
    made = Policy(config, spec or robot()).to(dtype)
    made.fit_action({})
    # In float64 the noise bound would else keep its float32 rounding.
    made.chain.set_progress(0.0, hold=0.0, final=1.0)
    with torch.no_grad():
        for weight in made.parameters():
            # Initial last layers are near zero: spread all weights, so that no input can be ignored unnoticed.
            weight.add_(lively * torch.randn_like(weight) / weight.shape[-1] ** 0.5)
    return made


def observe(made: Policy, rows: int, seed: int = 1) -> dict[str, Tensor]:
    """Random observations with history."""
    generator = torch.Generator().manual_seed(seed)
    like = made.action_norm.scale
    shape = (rows, made.config.obs_horizon, made.robot.observation["policy"].shape[0])
    return {"policy": torch.randn(shape, generator=generator, dtype=like.dtype)}


def roll(made: Policy, rows: int, seed: int = 2) -> tuple[Cond, Any]:
    """Condition and sampled path, without gradients, as in a rollout."""
    with torch.no_grad():
        cond = made.encode(observe(made, rows))
        return cond, made.sample(cond, made.draw_noise(rows, torch.Generator().manual_seed(seed)))


class Field(nn.Module):
    """A velocity given as a function of (x, t), t shaped to broadcast with x."""

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        del cond
        return self.velocity(x, t[:, None, None])


def gaussian_field(mean: float, std: float) -> Field:
    """E[x_1 - x_0 | x_t] for x_0 ~ N(0, 1), x_1 ~ N(mean, std^2): its flow maps x_0 to mean + std x_0."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        gain = (t * std**2 - (1 - t)) / (t**2 * std**2 + (1 - t) ** 2)
        return mean + gain * (x - t * mean)

    return Field(velocity)


def mixture_field(means: tuple[float, ...], std: float) -> Field:
    """The same for equal parts of N(m, std^2): each part's field, weighted by its posterior probability."""
    parts = [gaussian_field(m, std) for m in means]

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        var = t**2 * std**2 + (1 - t) ** 2
        weight = torch.stack([-((x - t * m) ** 2) / (2 * var) for m in means]).softmax(dim=0)
        return sum((w * part.velocity(x, t) for w, part in zip(weight, parts, strict=True)), torch.zeros_like(x))

    return Field(velocity)


def nothing(rows: int, dtype: torch.dtype = torch.float64) -> Cond:
    """A condition without content."""
    return Cond(torch.zeros(rows, 0, dtype=dtype))


def clone_modes(made: Policy, means: tuple[float, ...], std: float, updates: int = 1500, rows: int = 512) -> None:
    """Behaviour cloning of equal parts of N(m, std^2) by a policy of one action."""
    optimiser = torch.optim.Adam(made.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    obs, mask = {"policy": torch.zeros(rows, 1, 1)}, torch.ones(rows, 1, dtype=torch.bool)
    for _ in range(updates):
        mode = torch.tensor(means)[torch.randint(len(means), (rows,), generator=generator)]
        action = made.to_robot((mode + std * torch.randn(rows, generator=generator)).view(-1, 1, 1))
        noise = torch.randn(rows, 1, 1, generator=generator)
        t, u = torch.rand(2, rows, generator=generator)
        loss = bc_loss(made, obs, action, mask, noise, t, u)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
