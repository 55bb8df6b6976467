"""PPO on a chain: the path from noise to action is the action (ReinFlow, Zhang et al. 2025; PPO, Schulman et al. 2017).

    log pi(path) = sum_k log p(x_k | x_{k-1}, obs)            the exact likelihood of the path
    L = E min( r A, clip(r, 1 +- eps) A ),   r = exp( agg log pi_new - agg log pi_old )

`agg` is a named setting: `mean` over every scored entry (a geometric mean of densities; eps about .01) or `sum`
(the true likelihood ratio; eps about .2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from robo_rlft.errors import ConfigError
from robo_rlft.learning.config import PPOConfig
from robo_rlft.policies import Critic, Policy
from robo_rlft.policies.chains import Path

AGGREGATIONS = ("mean", "sum")
Info = dict[str, float]


@dataclass(frozen=True)
class PPOBatch:
    """Chunks of experience, one per row.

    Attributes:
        obs: what the policy saw, with history.
        critic_obs: what the critic sees, newest observation only.
        path: the sampled paths.
        executed: control steps executed, 1..execute.
        log_prob: aggregated log-probability under the policy that acted.
        advantage: normalised advantages.
        target: value targets.
        value: the critic's value before the update.
    """

    obs: dict[str, Tensor]
    critic_obs: dict[str, Tensor]
    path: Path
    executed: Int[Tensor, " row"]
    log_prob: Float[Tensor, " row"]
    advantage: Float[Tensor, " row"]
    target: Float[Tensor, " row"]
    value: Float[Tensor, " row"]

    def __len__(self) -> int:
        return len(self.executed)

    def __getitem__(self, rows: Tensor | slice) -> PPOBatch:
        picked = {
            f.name: {k: v[rows] for k, v in item.items()} if isinstance(item, dict) else item[rows]
            for f in fields(self)
            for item in [getattr(self, f.name)]
        }
        return replace(self, **picked)


@dataclass
class Learner:
    """What one PPO run trains.

    Attributes:
        policy: the actor.
        critic: the value function.
        actor_optimiser: over the policy's parameters.
        critic_optimiser: over the critic's.
        reference: the frozen policy of the behaviour-cloning regulariser; None without one.
    """

    policy: Policy
    critic: Critic
    actor_optimiser: Optimizer
    critic_optimiser: Optimizer
    reference: Policy | None = None


def update(
    learner: Learner, batch: PPOBatch, config: PPOConfig, generator: torch.Generator, *, train_actor: bool = True
) -> Info:
    """One round of epochs over a rollout.

    The epochs end early, before the actor's step, when the KL estimate of a minibatch passes `target_kl`.

    Returns:
        means over the minibatches of the losses, the KL estimate, the clipped share and the largest |ratio - 1| of the
        very first minibatch (it must be about 0: the likelihood of the rollout is the likelihood of the update).
    """
    figures: dict[str, list[float]] = {}
    for rows in _minibatches(len(batch), config, generator):
        part = batch[rows]
        info = _critic_step(learner, part, config)
        if train_actor:
            info |= _actor_step(learner, part, config, generator)
        for key, value in info.items():
            figures.setdefault(key, []).append(value)
        if train_actor and _too_far(info["kl"], config):
            break
    first = figures.pop("ratio_error", [0.0])[0]
    means = {key: sum(values) / len(values) for key, values in figures.items()}
    return means | {"first_ratio_error": first, "updates": len(figures["critic_loss"])}


def actor_loss(policy: Policy, batch: PPOBatch, config: PPOConfig) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The clipped surrogate minus the entropy bonus."""
    score = policy.score(policy.encode(batch.obs), batch.path)
    mask = event_mask(batch.path, batch.executed)
    log_ratio = _bound(aggregate(score.log_prob, mask, config.aggregation), config) - batch.log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    surrogate = torch.min(ratio * batch.advantage, clipped * batch.advantage).mean()
    scored = batch.path.scored.clone()
    scored[0] = False
    entropy = aggregate(score.entropy, mask & scored[..., None, None], "mean").mean()
    info = {
        "actor_loss": -surrogate,
        "entropy": entropy,
        "kl": (ratio - 1 - log_ratio).mean(),
        "clipped": ((ratio - 1).abs() > config.clip).float().mean(),
        "ratio_error": (ratio - 1).abs().max(),
    }
    return -surrogate - config.entropy_coef * entropy, info


def critic_loss(critic: Critic, batch: PPOBatch, config: PPOConfig) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Half the mean squared error, pessimistically clipped if asked."""
    value = critic(batch.critic_obs)
    error = (value - batch.target) ** 2
    if config.value_clip > 0:
        near = batch.value + (value - batch.value).clamp(-config.value_clip, config.value_clip)
        error = torch.max(error, (near - batch.target) ** 2)
    explained = 1 - (batch.target - value).var() / batch.target.var().clamp(min=1e-8)
    return 0.5 * error.mean(), {"critic_loss": 0.5 * error.mean(), "explained_variance": explained}


def bc_regulariser(policy: Policy, reference: Policy, batch: PPOBatch, noise: Tensor) -> Float[Tensor, ""]:
    """Mean squared distance of both policies' deterministic actions from the SAME starting noise.

    An upper bound of the squared 2-Wasserstein distance of their action distributions (ReinFlow, section on
    regularisation).
    """
    with torch.no_grad():
        wanted = reference.sample(reference.encode(batch.obs), noise, deterministic=True).latents[-1]
    got = policy.sample(policy.encode(batch.obs), noise, deterministic=True).latents[-1]
    return ((got - wanted) ** 2).mean()


@torch.no_grad()
def old_log_prob(
    policy: Policy, obs: dict[str, Tensor], path: Path, executed: Tensor, config: PPOConfig
) -> Float[Tensor, " row"]:
    """Aggregated log-probability of a rollout before the update, in the shapes of the update.

    Scoring in the update's own shapes makes the first ratio 1 to rounding, whatever kernels the matmuls use.
    """
    parts = []
    for rows in _pieces(len(executed), policy, config):
        part = path[rows]
        score = policy.score(policy.encode({k: v[rows] for k, v in obs.items()}), part)
        total = aggregate(score.log_prob, event_mask(part, executed[rows]), config.aggregation)
        parts.append(_bound(total, config))
    return torch.cat(parts)


def event_mask(path: Path, executed: Int[Tensor, " row"]) -> Bool[Tensor, "point row chunk 1"]:
    """Which entries of a path count.

    An action that was not executed had no effect, but its EARLIER latents did: the network reads the whole chunk. So
    only the last point's tail is left out.
    """
    points, rows, chunk, _ = path.latents.shape
    mask = path.scored[:, :, None, None].expand(points, rows, chunk, 1).clone()
    steps = torch.arange(chunk, device=executed.device)
    mask[-1] &= (steps < executed[:, None]).unsqueeze(-1)
    return mask


def aggregate(
    x: Float[Tensor, "point row chunk action"], mask: Bool[Tensor, "point row chunk 1"], how: str
) -> Float[Tensor, " row"]:
    """Reduce per-entry log-probabilities to one number per row: `sum`, or `mean` over the entries that count.

    Raises:
        ConfigError: an unknown aggregation.
    """
    if how not in AGGREGATIONS:
        raise ConfigError(f"ppo.aggregation '{how}' is unknown: choose one of {', '.join(AGGREGATIONS)}")
    valid = mask.squeeze(-1)
    total = torch.where(valid, x.sum(-1), 0.0).sum(dim=(0, 2))
    return total if how == "sum" else total / (valid.sum(dim=(0, 2)) * x.shape[-1]).clamp(min=1)


def normalise(advantage: Tensor) -> Tensor:
    """Zero mean, unit variance."""
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def _actor_step(learner: Learner, batch: PPOBatch, config: PPOConfig, generator: torch.Generator) -> Info:
    policy, regularise = learner.policy, learner.reference is not None and config.bc_coef > 0
    noise = policy.draw_noise(len(batch), generator)[:1] if regularise else None
    learner.actor_optimiser.zero_grad(set_to_none=True)
    totals: dict[str, Tensor] = {}
    for rows in _pieces(len(batch), policy, config):
        part = batch[rows]
        share = len(part) / len(batch)
        loss, figures = actor_loss(policy, part, config)
        if noise is not None and learner.reference is not None:
            figures["bc_distance"] = bc_regulariser(policy, learner.reference, part, noise[:, rows])
            loss = loss + config.bc_coef * figures["bc_distance"]
        (share * loss).backward()
        _gather(totals, figures, share)
    info = _floats(totals)
    if _too_far(info["kl"], config):
        return info
    return info | {"actor_grad_norm": _step(learner.actor_optimiser, config.grad_clip)}


def _critic_step(learner: Learner, batch: PPOBatch, config: PPOConfig) -> Info:
    loss, info = critic_loss(learner.critic, batch, config)
    learner.critic_optimiser.zero_grad(set_to_none=True)
    (config.value_coef * loss).backward()
    norm = _step(learner.critic_optimiser, config.grad_clip)
    return _floats(info) | {"critic_grad_norm": norm}


def _step(optimiser: Optimizer, grad_clip: float) -> float:
    # The optimiser's own list: walking a module's tree for its parameters costs as much as a small layer.
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = clip_grad_norm_(parameters, grad_clip if grad_clip > 0 else float("inf"))
    optimiser.step()
    return float(norm)


def _too_far(kl: float, config: PPOConfig) -> bool:
    return 0 < config.target_kl < kl


def _pieces(rows: int, policy: Policy, config: PPOConfig) -> Iterator[slice]:
    """A minibatch in pieces whose activations stay in the processor's cache through forward AND backward pass.

    The gradient is the sum over the pieces, so their size changes speed and memory, never the result.
    """
    size = max(1, config.fold_rows // policy.chain.steps) if config.fold_rows > 0 else rows
    return (slice(first, min(first + size, rows)) for first in range(0, rows, size))


def _gather(totals: dict[str, Tensor], info: dict[str, Tensor], share: float) -> None:
    """Combine the figures of the pieces: means by their share of the rows, the ratio's error by its maximum."""
    for key, value in info.items():
        new = value.detach()
        old = totals.get(key, torch.zeros_like(new))
        totals[key] = torch.maximum(old, new) if key == "ratio_error" else old + share * new


def _bound(log_prob: Tensor, config: PPOConfig) -> Tensor:
    limit = config.log_ratio_bound
    return log_prob.clamp(-limit, limit) if limit > 0 else log_prob


def _minibatches(rows: int, config: PPOConfig, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(config.epochs):
        order = torch.randperm(rows, generator=generator)
        yield from order.split(config.minibatch)


def _floats(info: dict[str, Tensor]) -> Info:
    return {k: float(v.detach()) for k, v in info.items()}


__all__: list[str] = [
    "Learner",
    "PPOBatch",
    "actor_loss",
    "aggregate",
    "bc_regulariser",
    "critic_loss",
    "event_mask",
    "normalise",
    "old_log_prob",
    "update",
]
