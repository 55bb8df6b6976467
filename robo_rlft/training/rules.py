"""What values the settings may take: choices, ranges, and how they must fit together. All of it stands here.

Checked before anything starts, so that a run of hours cannot end on a contradiction in its first line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from robo_rlft.envs.randomise import LOOKS, NoiseConfig, wrong_ranges
from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.policies.config import POOLS, PRECISIONS
from robo_rlft.training.config import Config

CHOICES: dict[str, tuple[str, ...]] = {
    "matmul": ("auto", "highest", "high", "medium"),
    "collect.keep": ("success", "all"),
    "export.checkpoint": ("last", "best"),
    "export.rtc": ("none", "prefix", "guided"),
    "policy.network.name": ("mlp", "unet1d", "transformer"),
    "policy.encoder.name": ("resnet", "vit", "efficientnet"),
    "policy.encoder.pool": POOLS,
    "policy.chain.name": (
        "euler",
        "reinflow",
        "flow_sde",
        "flow_noise",
        "fpo",
        "dsrl",
        "shortcut",
        "mean_flow",
        "ddpm",
        "ddim",
        "gaussian",
    ),
    "policy.chain.sde_steps": ("one", "all"),
    "policy.chain.precision": PRECISIONS,
    "policy.obs_normaliser": ("gaussian", "minmax", "none"),
    "policy.action_normaliser": ("minmax", "bounds"),
    "bc.time_sampling": ("uniform", "beta", "logit_normal"),
    "ppo.aggregation": ("mean", "sum"),
    "ppo.mdp": ("chain", "steps"),
    "ppo.advantage": ("gae", "group"),
    "ppo.objective": ("surrogate", "awr"),
    "algorithm": ("ppo", "chunk_critic"),
    "critic.aggregate": ("mean", "min"),
}
"""Settings that name one of a few things."""
CHOICES |= {
    "curriculum.name": ("none", "bandit", "initial_states", "both"),
    "curriculum.score": ("auto", "success", "return"),
}
CHOICES |= {
    "residual.network.name": ("mlp",),
    "residual.chain.name": ("gaussian",),
    "residual.chain.precision": PRECISIONS,
}


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`; `open_low` and `open_high` leave the ends out."""

    low: float = 0.0
    high: float = float("inf")
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        if self.high == float("inf"):
            return f"{'more than' if self.open_low else 'at least'} {self.low:g}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


AT_LEAST_ZERO = Interval()
AT_LEAST_ONE = Interval(1)
POSITIVE = Interval(open_low=True)
FRACTION = Interval(0, 1)

RANGES: dict[str, Interval] = {
    "seed": Interval(0, 2**31 - 1),
    "threads": AT_LEAST_ZERO,
    "env.num_envs": AT_LEAST_ONE,
    "env.threads": AT_LEAST_ZERO,
    "env.images.size": AT_LEAST_ONE,
    **{f"env.randomise.{name}": AT_LEAST_ZERO for name in ("mass", "friction", "gains", "latency_s", "push_velocity")},
    "env.randomise.push_interval_s": POSITIVE,
    **{f"env.randomise.noise.{unit.name}": AT_LEAST_ZERO for unit in fields(NoiseConfig)},
    **{f"env.randomise.{name}": FRACTION for name in LOOKS},
    "data.episodes": AT_LEAST_ZERO,
    "collect.episodes": AT_LEAST_ONE,
    "collect.num_envs": AT_LEAST_ONE,
    "collect.teacher_share": FRACTION,
    "collect.max_attempts": AT_LEAST_ZERO,
    "policy.network.hidden": AT_LEAST_ONE,
    "policy.network.time_dim": Interval(2),
    "policy.network.width": AT_LEAST_ONE,
    "policy.network.depth": AT_LEAST_ONE,
    "policy.network.heads": AT_LEAST_ONE,
    "policy.network.kernel": AT_LEAST_ONE,
    "policy.encoder.width": AT_LEAST_ONE,
    "policy.encoder.depth": AT_LEAST_ONE,
    "policy.encoder.heads": AT_LEAST_ONE,
    "policy.encoder.patch": AT_LEAST_ONE,
    "policy.encoder.points": AT_LEAST_ONE,
    "policy.encoder.features": AT_LEAST_ONE,
    "policy.encoder.shift": AT_LEAST_ZERO,
    "policy.chain.steps": AT_LEAST_ONE,
    "policy.chain.latent_clip": AT_LEAST_ZERO,
    "policy.chain.noise_clip": AT_LEAST_ZERO,
    "policy.chain.std_min": POSITIVE,
    "policy.chain.std_max": POSITIVE,
    "policy.chain.noise_hidden": AT_LEAST_ONE,
    "policy.chain.noise_bound": POSITIVE,
    "policy.chain.init_std": POSITIVE,
    "policy.chain.sde_noise": POSITIVE,
    "policy.chain.levels": AT_LEAST_ZERO,
    "policy.chain.trained_steps": AT_LEAST_ZERO,
    "policy.chain.sample_std_min": POSITIVE,
    "policy.chain.score_std_min": POSITIVE,
    "policy.chain.eta": FRACTION,
    "policy.chain.finest": Interval(2),
    "policy.chain.span_share": FRACTION,
    "policy.chain.adaptive_power": AT_LEAST_ZERO,
    "policy.chain.fpo_pairs": AT_LEAST_ONE,
    "policy.obs_horizon": AT_LEAST_ONE,
    "policy.chunk": AT_LEAST_ONE,
    "policy.execute": AT_LEAST_ONE,
    "policy.obs_clip": AT_LEAST_ZERO,
    "policy.network.last_scale": AT_LEAST_ZERO,
    "residual.scale": Interval(0, 1, open_low=True),
    "bc.steps": AT_LEAST_ONE,
    "bc.batch_size": AT_LEAST_ONE,
    "bc.lr": POSITIVE,
    "bc.lr_final": AT_LEAST_ZERO,
    "bc.warmup": AT_LEAST_ZERO,
    "bc.weight_decay": AT_LEAST_ZERO,
    "bc.ema_decay": Interval(0, 1, open_high=True),
    "bc.grad_clip": AT_LEAST_ZERO,
    "bc.validation": Interval(0, 1, open_high=True),
    "bc.wall_seconds": AT_LEAST_ZERO,
    "ppo.iterations": AT_LEAST_ONE,
    "ppo.rollout": AT_LEAST_ONE,
    "ppo.epochs": AT_LEAST_ONE,
    "ppo.minibatch": AT_LEAST_ONE,
    "ppo.gamma": Interval(0, 1, open_low=True),
    "ppo.group": Interval(2),
    "ppo.gae_lambda": FRACTION,
    "ppo.awr_temperature": POSITIVE,
    "ppo.awr_weight_max": POSITIVE,
    "ppo.awr_draws": AT_LEAST_ONE,
    "ppo.clip": POSITIVE,
    "ppo.clip_first": AT_LEAST_ZERO,
    "ppo.dual_clip": AT_LEAST_ZERO,
    "ppo.denoise_gamma": Interval(0, 1, open_low=True),
    "ppo.log_ratio_bound": AT_LEAST_ZERO,
    "ppo.actor_lr": AT_LEAST_ZERO,
    "ppo.actor_lr_final": AT_LEAST_ZERO,
    "ppo.critic_lr": POSITIVE,
    "ppo.critic_lr_final": AT_LEAST_ZERO,
    "ppo.lr_warmup": AT_LEAST_ZERO,
    "ppo.critic_warmup": AT_LEAST_ZERO,
    "ppo.critic_hidden": AT_LEAST_ONE,
    "ppo.value_coef": AT_LEAST_ZERO,
    "ppo.value_clip": AT_LEAST_ZERO,
    "ppo.entropy_coef": AT_LEAST_ZERO,
    "ppo.bc_coef": AT_LEAST_ZERO,
    "ppo.target_kl": AT_LEAST_ZERO,
    "ppo.grad_clip": AT_LEAST_ZERO,
    "ppo.std_hold": FRACTION,
    "ppo.std_final": FRACTION,
    "ppo.fold_rows": AT_LEAST_ZERO,
    "critic.rounds": AT_LEAST_ONE,
    "critic.rollout": AT_LEAST_ONE,
    "critic.updates": AT_LEAST_ONE,
    "critic.minibatch": AT_LEAST_ONE,
    "critic.gamma": Interval(0, 1, open_low=True),
    "critic.return_lambda": FRACTION,
    "critic.lr": POSITIVE,
    "critic.lr_final": AT_LEAST_ZERO,
    "critic.weight_decay": AT_LEAST_ZERO,
    "critic.hidden": AT_LEAST_ONE,
    "critic.members": AT_LEAST_ONE,
    "critic.validation": Interval(0, 1, open_low=True, open_high=True),
    "evaluate.episodes": AT_LEAST_ONE,
    "evaluate.seed": Interval(0, 2**31 - 1),
    "evaluate.num_envs": AT_LEAST_ONE,
    "evaluate.videos": AT_LEAST_ZERO,
    "evaluate.steps": AT_LEAST_ZERO,
    "evaluate.candidates": AT_LEAST_ZERO,
    "evaluate.alpha": AT_LEAST_ZERO,
    "evaluate.best_of": AT_LEAST_ZERO,
    "run.save_every": AT_LEAST_ONE,
    "run.eval_every": AT_LEAST_ZERO,
    "run.eval_episodes": AT_LEAST_ONE,
    "run.max_steps": AT_LEAST_ZERO,
    "run.wall_seconds": AT_LEAST_ZERO,
}
"""Bounds of numbers; for a list, of each of its entries."""
RANGES |= {"export.execute": AT_LEAST_ZERO, "export.prefix": AT_LEAST_ZERO}
RANGES |= {
    "curriculum.alpha": Interval(0, 1, open_low=True),
    "curriculum.temperature": POSITIVE,
    "curriculum.explore": FRACTION,
    "curriculum.replay": FRACTION,
    "curriculum.states": AT_LEAST_ONE,
}
RANGES |= {
    key.replace("policy", "residual", 1): interval
    for key, interval in RANGES.items()
    if key.startswith(("policy.network.", "policy.chain."))
}

Rule = Callable[[Config], Iterator[str]]


def validate(config: Config, verb: str = "") -> None:
    """Raise `ConfigError` for the first setting that cannot be meant.

    Args:
        config: the whole tree.
        verb: also check the rules of this verb's own schedule.
    """
    problems = (
        *_choices(config),
        *_ranges(config),
        *_policy(config),
        *_acting(config),
        *wrong_ranges(config.env.randomise),
        *(p for r in RULES.get(verb, ()) for p in r(config)),
    )
    if problems:
        raise ConfigError(problems[0])


def _choices(config: Config) -> Iterator[str]:
    for key, known in CHOICES.items():
        value = value_at(config, key)
        if value not in known:
            yield unknown_name(key, value, known)


def _ranges(config: Config) -> Iterator[str]:
    for key, interval in RANGES.items():
        value = value_at(config, key)
        for number in value if isinstance(value, list) else (value,):
            if number not in interval:
                yield f"{key}={value} is out of range: it must be {interval}"


def _policy(config: Config) -> Iterator[str]:
    policy, chain = config.policy, config.policy.chain
    if policy.execute > policy.chunk:
        yield (
            f"policy.execute={policy.execute} exceeds policy.chunk={policy.chunk}: a policy cannot execute more "
            "actions than it predicts"
        )
    if chain.std_min > chain.std_max:
        yield f"policy.chain.std_min={chain.std_min:g} exceeds policy.chain.std_max={chain.std_max:g}: swap them"
    if not policy.obs_keys:
        yield "policy.obs_keys is empty: name at least one observation group, e.g. policy.obs_keys=[policy]"
    if policy.network.name == "transformer" and policy.network.width % policy.network.heads:
        yield (
            f"policy.network.width={policy.network.width} is not a multiple of policy.network.heads="
            f"{policy.network.heads}: attention splits the width evenly"
        )


def _acting(config: Config) -> Iterator[str]:
    settings = config.evaluate
    ways = {"guidance": settings.guidance, "candidates": settings.candidates, "best_of": settings.best_of}
    off = {"guidance": None, "candidates": 0, "best_of": 0}
    chosen = [f"evaluate.{name}={value:g}" for name, value in ways.items() if value is not None and value != off[name]]
    if len(chosen) > 1:
        yield f"{' and '.join(chosen)} exclude each other: choose one, and set guidance to null, the others to 0"
    if settings.alpha > 0 and settings.candidates == 0:
        yield f"evaluate.alpha={settings.alpha:g} weighs candidates, and there are none: set evaluate.candidates"


def _bc_schedule(config: Config) -> Iterator[str]:
    if config.bc.wall_seconds == 0 and config.bc.warmup >= config.bc.steps:
        yield f"bc.warmup={config.bc.warmup} leaves nothing of bc.steps={config.bc.steps}: shorten the warm-up"
    if config.bc.lr_final > config.bc.lr:
        yield f"bc.lr_final={config.bc.lr_final:g} exceeds bc.lr={config.bc.lr:g}: the learning rate must not grow"


def _ppo_schedule(config: Config) -> Iterator[str]:
    if config.algorithm != "ppo":
        return
    ppo, run = config.ppo, config.run
    for key, value in (("run.eval_every", run.eval_every), ("ppo.critic_warmup", ppo.critic_warmup)):
        if value > ppo.iterations:
            yield f"{key}={value} exceeds ppo.iterations={ppo.iterations}: it would never come about; lower it"
    if ppo.lr_warmup >= ppo.iterations > 1:
        yield f"ppo.lr_warmup={ppo.lr_warmup} leaves nothing of ppo.iterations={ppo.iterations}: shorten the warm-up"
    if ppo.advantage == "group" and config.env.num_envs % ppo.group:
        yield f"env.num_envs={config.env.num_envs} is no multiple of ppo.group={ppo.group}: groups must be whole"
    if ppo.step_minibatch and ppo.mdp != "steps":
        yield f"ppo.step_minibatch=true needs actions that are denoising steps, ppo.mdp is {ppo.mdp}: use ppo.mdp=steps"
    steps = (config.policy.chain.trained_steps or config.policy.chain.steps) if ppo.step_minibatch else 1
    rows = config.env.num_envs * ppo.rollout * steps
    if ppo.minibatch > rows:
        each = f" x {steps} denoising steps" if ppo.step_minibatch else ""
        yield (
            f"ppo.minibatch={ppo.minibatch} exceeds the {rows} rows of a round (env.num_envs={config.env.num_envs} x "
            f"ppo.rollout={ppo.rollout}{each}): lower it or collect more"
        )


def _ppo_likelihood(config: Config) -> Iterator[str]:
    if config.algorithm != "ppo":
        return
    chain, awr = config.learner.chain.name, config.ppo.objective == "awr"
    if chain == "euler" and not awr:
        yield (
            "policy.chain.name=euler is deterministic and has no likelihood to fine-tune: choose reinflow, or gaussian "
            "for a one-step policy"
        )
    if chain == "dsrl" and awr:
        yield (
            "ppo.objective=awr trains the network, which policy.chain.name=dsrl leaves frozen: use "
            "ppo.objective=surrogate"
        )
    if chain == "dsrl" and config.run.checkpoint == "none":
        yield "policy.chain.name=dsrl steers a cloned flow, and run.checkpoint=none has none: pretrain one"
    bounds = config.ppo.entry_bounds
    if bounds and not (len(bounds) == 2 and bounds[0] < bounds[1]):
        yield f"ppo.entry_bounds={bounds} is no pair of a lower and a higher bound, e.g. ppo.entry_bounds=[-5,2]"
    if 0 < config.ppo.dual_clip <= 1:
        yield f"ppo.dual_clip={config.ppo.dual_clip:g} must be more than 1, or 0 to switch it off"


def _critic_schedule(config: Config) -> Iterator[str]:
    if config.algorithm != "chunk_critic":
        return
    critic, envs = config.critic, config.env.num_envs
    held = round(envs * critic.validation)
    if not 1 <= held < envs:
        yield (
            f"critic.validation={critic.validation:g} holds out {held} of env.num_envs={envs}: at least one must be "
            "held out, and one learned from"
        )
    if critic.lr_final > critic.lr:
        yield f"critic.lr_final={critic.lr_final:g} exceeds critic.lr={critic.lr:g}: the learning rate must not grow"


RULES: dict[str, tuple[Rule, ...]] = {
    "pretrain": (_bc_schedule,),
    "finetune": (_ppo_schedule, _ppo_likelihood, _critic_schedule),
}
"""Rules between settings that matter to one verb only."""


def value_at(config: Any, key: str) -> Any:
    """The value of a dotted key."""
    for part in key.split("."):
        config = getattr(config, part)
    return config
