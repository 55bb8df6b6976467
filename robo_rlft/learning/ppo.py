"""PPO on a chain: the path from noise to action, or each of its steps, is the action (PPO, Schulman et al. 2017).

    log pi(path) = sum_k log p(x_k | x_{k-1}, obs)            the exact likelihood of the path
    L = E min( r A, clip(r, 1 +- eps) A ),   r = exp( agg log pi_new - agg log pi_old )

`agg` is a named setting: `mean` over every scored entry (a geometric mean of densities; eps about .01) or `sum`
(the true likelihood ratio; eps about .2). ReinFlow (Zhang et al. 2025) takes the whole path as one action; whether each
denoising step is one instead, as in DPPO (Ren et al. 2024), is a value passed in: `robo_rlft.learning.mdp`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from robo_rlft.learning import awr
from robo_rlft.learning.config import PPOConfig
from robo_rlft.learning.mdp import AGGREGATIONS, MDP, aggregate, event_mask, mdp_of
from robo_rlft.policies import Critic, Policy
from robo_rlft.policies.chains import Path

Info = dict[str, float]
ActorLoss = tuple[Float[Tensor, ""], dict[str, Tensor]]


@dataclass(frozen=True)
class PPOBatch:
    """Chunks of experience, one per row.

    Attributes:
        obs: what the policy saw, with history.
        critic_obs: what the critic sees, newest observation only.
        path: the sampled paths.
        executed: control steps executed, 1..execute.
        log_prob: aggregated log-probability under the policy that acted, of each action the MDP sees; of no meaning
            to `objective=awr`.
        advantage: normalised advantages.
        target: value targets.
        value: the critic's value before the update.
    """

    obs: dict[str, Tensor]
    critic_obs: dict[str, Tensor]
    path: Path
    executed: Int[Tensor, " row"]
    log_prob: Float[Tensor, "row *point"]
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
    learner: Learner,
    batch: PPOBatch,
    config: PPOConfig,
    generator: torch.Generator,
    *,
    train_actor: bool = True,
    train_critic: bool = True,
) -> Info:
    """One round of epochs over a rollout.

    The epochs end early, before the actor's step, when the KL estimate of a minibatch passes `target_kl`.

    Returns:
        means over the minibatches of the losses, the KL estimate, the clipped share and the largest |ratio - 1| of the
        very first minibatch (it must be about 0: the likelihood of the rollout is the likelihood of the update).
    """
    figures: dict[str, list[Tensor]] = {}
    updates = 0
    for part in _minibatches(batch, config, learner.policy.chain.learned, generator):
        updates += 1
        info = _critic_step(learner, part, config) if train_critic else {}
        if train_actor:
            info |= _actor_step(learner, part, config, generator)
        for key, value in info.items():
            figures.setdefault(key, []).append(value.detach())
        if train_actor and "actor_grad_norm" not in info:
            break
    # The device is waited for here, once per figure, and not in every minibatch.
    numbers = {key: torch.stack(values).tolist() for key, values in figures.items()}
    first = numbers.pop("ratio_error", [0.0])[0]
    means = {key: sum(values) / len(values) for key, values in numbers.items()}
    return means | {"first_ratio_error": first, "updates": updates}


def actor_loss(policy: Policy, batch: PPOBatch, config: PPOConfig) -> ActorLoss:
    """The clipped surrogate minus the entropy bonus."""
    score = policy.score(policy.encode(batch.obs), batch.path)
    chain, mask = policy.chain, event_mask(batch.path, batch.executed)
    mdp = mdp_of(config, chain.window, chain.learned)
    log_ratio = _bound(mdp.log_prob(score.log_prob, mask), config) - batch.log_prob
    ratio, clip = log_ratio.exp(), mdp.clip(log_ratio)
    gain = mdp.mean(surrogate(ratio, mdp.advantage(batch.advantage), clip, config.dual_clip), batch.path)
    ours = torch.zeros_like(mask)
    ours[chain.learned] = mask[chain.learned]
    entropy = aggregate(score.entropy, ours, "mean").mean()
    info = {
        "actor_loss": -gain,
        "entropy": entropy,
        "kl": mdp.mean(ratio - 1 - log_ratio, batch.path),
        "clipped": mdp.mean(((ratio - 1).abs() > clip).to(ratio.dtype), batch.path),
        "ratio_error": (ratio - 1).abs().max(),
    }
    return -gain - config.entropy_coef * entropy, info


def surrogate(
    ratio: Float[Tensor, "row *point"],
    advantage: Float[Tensor, "row *point"],
    clip: Float[Tensor, "*point"],
    dual_clip: float = 0.0,
) -> Float[Tensor, "row *point"]:
    """min(r A, clip(r) A), and not below `dual_clip` A where A < 0 (Ye et al. 2020)."""
    gain = torch.min(ratio * advantage, torch.clamp(ratio, 1 - clip, 1 + clip) * advantage)
    return torch.where(advantage < 0, torch.max(gain, dual_clip * advantage), gain) if dual_clip > 0 else gain


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
) -> Float[Tensor, "row *point"]:
    """Aggregated log-probability of a rollout before the update, in the shapes of the update.

    Scoring in the update's own shapes makes the first ratio 1 to rounding, whatever kernels the matmuls use.
    """
    parts, mdp = [], mdp_of(config, policy.chain.window, policy.chain.learned)
    for rows in _pieces(len(executed), policy.chain.scored_steps, config):
        part = path[rows]
        score = policy.score(policy.encode({k: v[rows] for k, v in obs.items()}), part)
        parts.append(_bound(mdp.log_prob(score.log_prob, event_mask(part, executed[rows])), config))
    return torch.cat(parts)


def normalise(advantage: Tensor) -> Tensor:
    """Zero mean, unit variance."""
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def single_steps(batch: PPOBatch, rows: Int[Tensor, " pair"], steps: Int[Tensor, " pair"], learned: slice) -> PPOBatch:
    """One row per pair of a chunk and one of its `learned` points: the chunk with that step alone scored."""
    part = batch[rows]
    scored = torch.zeros_like(part.path.scored)
    chosen = torch.arange(len(scored[learned]), device=steps.device) == steps[:, None]
    scored[learned] = chosen.T
    path = replace(part.path, scored=scored)
    return replace(part, path=path, log_prob=torch.where(chosen, part.log_prob, 0.0))


def _actor_step(learner: Learner, batch: PPOBatch, config: PPOConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """A step on a minibatch, if its KL allows it; the norm of its gradient tells that it was made."""
    policy, regularise = learner.policy, learner.reference is not None and config.bc_coef > 0
    noise = policy.draw_noise(len(batch), generator)[:1] if regularise else None
    learner.actor_optimiser.zero_grad(set_to_none=True)
    totals: dict[str, Tensor] = {}
    objective = _objective(policy, len(batch), config, generator)
    each = 1 if config.step_minibatch else policy.chain.scored_steps
    for rows in _pieces(len(batch), each, config):
        part = batch[rows]
        share = len(part) / len(batch)
        loss, figures = objective(part, rows)
        if noise is not None and learner.reference is not None:
            figures["bc_distance"] = bc_regulariser(policy, learner.reference, part, noise[:, rows])
            loss = loss + config.bc_coef * figures["bc_distance"]
        (share * loss).backward()
        _gather(totals, figures, share)
    if _too_far(totals, config):
        return totals
    return totals | {"actor_grad_norm": _step(learner.actor_optimiser, config.grad_clip)}


def _objective(
    policy: Policy, rows: int, config: PPOConfig, generator: torch.Generator
) -> Callable[[PPOBatch, slice], ActorLoss]:
    """The actor's loss of a part of a minibatch of so many rows, given which rows it is."""
    if config.objective == "surrogate":
        return lambda part, _: actor_loss(policy, part, config)
    draws = awr.draw(policy, rows, config.awr_draws, generator)
    return lambda part, which: awr.awr_loss(
        policy, part.obs, part.path.latents[-1], part.executed, part.advantage, draws[which], config
    )


def _critic_step(learner: Learner, batch: PPOBatch, config: PPOConfig) -> dict[str, Tensor]:
    loss, info = critic_loss(learner.critic, batch, config)
    learner.critic_optimiser.zero_grad(set_to_none=True)
    (config.value_coef * loss).backward()
    norm = _step(learner.critic_optimiser, config.grad_clip)
    return info | {"critic_grad_norm": norm}


def _step(optimiser: Optimizer, grad_clip: float) -> Tensor:
    # The optimiser's own list: walking a module's tree for its parameters costs as much as a small layer.
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = clip_grad_norm_(parameters, grad_clip if grad_clip > 0 else float("inf"))
    optimiser.step()
    return norm


def _too_far(info: dict[str, Tensor], config: PPOConfig) -> bool:
    """Whether the KL passes its bound; without a bound the device is not waited for."""
    return config.objective == "surrogate" and config.target_kl > 0 and float(info["kl"]) > config.target_kl


def _pieces(rows: int, scored_steps: int, config: PPOConfig) -> Iterator[slice]:
    """A minibatch in pieces whose activations stay in the processor's cache through forward AND backward pass.

    The gradient is the sum over the pieces, so their size changes speed and memory, never the result.
    """
    size = max(1, config.fold_rows // scored_steps) if config.fold_rows > 0 else rows
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


def _minibatches(batch: PPOBatch, config: PPOConfig, learned: slice, generator: torch.Generator) -> Iterator[PPOBatch]:
    """Chunks, or pairs of a chunk and a scored step, in a new order in every epoch."""
    if not config.step_minibatch:
        yield from (batch[rows] for rows in _orders(len(batch), config, generator))
        return
    rows, steps = batch.path.scored[learned].T.nonzero(as_tuple=True)
    for pairs in _orders(len(rows), config, generator):
        yield single_steps(batch, rows[pairs], steps[pairs], learned)


def _orders(rows: int, config: PPOConfig, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(config.epochs):
        yield from torch.randperm(rows, generator=generator).split(config.minibatch)


__all__: list[str] = [
    "AGGREGATIONS",
    "MDP",
    "Learner",
    "PPOBatch",
    "actor_loss",
    "aggregate",
    "bc_regulariser",
    "critic_loss",
    "event_mask",
    "normalise",
    "old_log_prob",
    "single_steps",
    "surrogate",
    "update",
]
