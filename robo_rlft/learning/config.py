"""Settings of the learning methods. Every default names its source."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class BCConfig:
    """Behaviour cloning by flow matching (or maximum likelihood for the Gaussian chain).

    Attributes:
        steps: optimiser steps.
        batch_size: windows per step.
        lr: peak learning rate (AdamW; DPPO and ReinFlow pre-train at 1e-3).
        lr_final: learning rate at the end of the cosine.
        warmup: steps of linear warm-up.
        weight_decay: AdamW's decay (1e-6, as diffusion policy).
        ema_decay: decay of the moving average of weights that is evaluated and saved; 0 switches it off.
        grad_clip: largest gradient norm; 0 leaves it free.
        time_sampling: distribution of t in the loss: `uniform`, `beta` (pi0: more weight on the noisy end)
            or `logit_normal`.
        validation: fraction of episodes held out for the validation loss.
        wall_seconds: stop after this much time instead of `steps` when > 0 (the learning rate follows the time).
    """

    steps: int = 10_000
    batch_size: int = 256
    lr: float = 1e-3
    lr_final: float = 1e-4
    warmup: int = 100
    weight_decay: float = 1e-6
    ema_decay: float = 0.995
    grad_clip: float = 1.0
    time_sampling: str = "uniform"
    validation: float = 0.05
    wall_seconds: float = 0.0


@dataclass
class PPOConfig:
    """PPO on a chain: the path from noise to action is the action.

    Attributes:
        iterations: rollout-update rounds.
        rollout: chunks per environment and round.
        epochs: passes over the round's data (ReinFlow: 5).
        minibatch: rows (chunks) per gradient step.
        step_minibatch: with `mdp=steps`, a row is one scored denoising step of one chunk, as DPPO samples them; an
            epoch then has as many rows as there are scored steps, and `minibatch` counts those.
        gamma: discount per CONTROL step. A published discount per chunk of H steps becomes its H-th root.
        advantage: `gae`, from the value function, or `group`, relative to other futures of the same state (GRPO).
        group: environments that start a round from one state, with `advantage=group`.
        gae_lambda: lambda of GAE, per chunk (.95).
        objective: what the actor minimises: the clipped `surrogate` of PPO, or `awr`, the cloning error of the executed
            actions weighted by their advantage (Peng et al. 2019). `awr` needs no likelihood; it knows no clip, KL or
            entropy.
        awr_temperature: beta of the weight exp(A / beta), in standard deviations of the advantage.
        awr_weight_max: largest weight (Peng et al.: 20).
        awr_draws: pairs of noise and time per action and gradient step; a flow's cloning error varies much with them.
        mdp: what the action is: `chain`, the whole path from noise to action, or `steps`, each denoising step (DPPO,
            Flow-SDE).
        aggregation: how log-probabilities over (K + 1, H, A), or over (H, A) of each step, become one ratio: `mean` or
            `sum`. It decides what `clip` means.
        clip: epsilon of the surrogate: .01 belongs to `mean` (ReinFlow, DPPO), .2 to `sum` (Flow-SDE).
        clip_first: epsilon of the first trained step, from where it grows to `clip` at the last, with `mdp=steps`
            (DPPO: .01 on the Gym tasks, .001 on robomimic); 0 takes `clip` for all steps.
        dual_clip: bound of the surrogate of bad actions, in advantages (Flow-SDE: 3); 0 switches it off.
        denoise_gamma: discount per denoising step before the last, with `mdp=steps` (DPPO: .99).
        entry_bounds: [low, high] that each entry's log-probability is clamped to (DPPO: [-5, 2]); empty leaves it free.
        log_ratio_bound: the aggregated log-probability is clamped to +- this before the ratio; 0 leaves it free.
        actor_lr: peak learning rate of the policy.
        actor_lr_final: its value after the cosine over all iterations.
        critic_lr: learning rate of the value function.
        critic_lr_final: its value after the cosine.
        lr_warmup: iterations of linear warm-up.
        critic_warmup: iterations in which only the value function learns.
        critic_hidden: widths of the value network.
        value_coef: weight of the value loss.
        value_clip: clip range of the value update; 0 switches it off.
        entropy_coef: weight of the entropy of the transitions, per dimension (ReinFlow: .03 on the Gym tasks).
        bc_coef: weight of the behaviour-cloning regulariser: mean squared distance of the actions of the present and
            the pre-trained policy from the same noise; 0 switches it off.
        target_kl: the epochs of a round end before the step whose mean KL estimate passes this; 0 switches it off.
        grad_clip: largest gradient norm of actor and critic; 0 leaves it free.
        reward_scale: divide rewards by the running standard deviation of the discounted return.
        normalise_advantage: zero mean, unit variance over each round.
        std_hold: fraction of the iterations before the noise bound anneals (ReinFlow: .35).
        std_final: where the annealed upper bound ends, as a fraction of [std_min, std_max] (ReinFlow: .7); 1 keeps it
            constant.
        fold_rows: rows of one forward and backward pass: the scored steps of some chunks. A minibatch is worked off
            in such pieces, which stay in the processor's cache; the gradient is the same. 0 takes it in one.
    """

    iterations: int = 100
    rollout: int = 32
    epochs: int = 5
    minibatch: int = 2048
    step_minibatch: bool = False
    gamma: float = 0.9975
    advantage: str = "gae"
    group: int = 8
    gae_lambda: float = 0.95
    objective: str = "surrogate"
    awr_temperature: float = 1.0
    awr_weight_max: float = 20.0
    awr_draws: int = 8
    mdp: str = "chain"
    aggregation: str = "mean"
    clip: float = 0.01
    clip_first: float = 0.0
    dual_clip: float = 0.0
    denoise_gamma: float = 0.99
    entry_bounds: list[float] = field(default_factory=list)
    log_ratio_bound: float = 0.0
    actor_lr: float = 4.5e-5
    actor_lr_final: float = 2e-5
    critic_lr: float = 6.5e-4
    critic_lr_final: float = 3e-4
    lr_warmup: int = 0
    critic_warmup: int = 0
    critic_hidden: list[int] = field(default_factory=lambda: [256, 256, 256])
    value_coef: float = 0.5
    value_clip: float = 0.0
    entropy_coef: float = 0.03
    bc_coef: float = 0.0
    target_kl: float = 1.0
    grad_clip: float = 1.0
    reward_scale: bool = True
    normalise_advantage: bool = True
    std_hold: float = 0.35
    std_final: float = 0.7
    fold_rows: int = 2048


@dataclass
class CurriculumConfig:
    """Which variants and which starts training practises (see `learning.curriculum`); evaluation always takes all.

    Attributes:
        name: `none`, every variant of the environment equally often; `bandit`, those from which most is learned (SEC,
            Chen et al. 2025); `initial_states`, also replay starts that sometimes succeed (ProCuRL, Tzannetos et al.
            2023; Rutherford et al. 2024); `both`.
        alpha: weight of the newest round in an arm's Q, and of the newest episode in a start's statistics.
        temperature: tau of the draw of variants; advantages are in units of their root mean square over a round.
        explore: share of the draws of variants that is even.
        replay: probability that an episode begins from a kept start of its variant (Rutherford et al.: .5).
        states: starts kept.
        score: what makes a start worth repeating: `success`, p (1 - p); `return`, the std of its returns; `auto`, the
            first where the task defines success.
    """

    name: str = "none"
    alpha: float = 0.3
    temperature: float = 0.1
    explore: float = 0.1
    replay: float = 0.5
    states: int = 512
    score: str = "auto"


@dataclass
class ChunkCriticConfig:
    """The value of chunks under a frozen policy (`algorithm=chunk_critic`), for search when acting.

    Attributes:
        rounds: rounds of collecting and fitting.
        rollout: chunks per environment and round.
        updates: gradient steps per round, on all experience so far.
        minibatch: chunks per gradient step.
        gamma: discount per CONTROL step.
        return_lambda: lambda of the returns, per chunk; 1 is Monte-Carlo.
        lr: peak learning rate (AdamW).
        lr_final: its value after the cosine.
        weight_decay: AdamW's decay.
        hidden: widths of each member.
        members: networks of the ensemble.
        aggregate: what the ensemble says: `mean` or `min`.
        validation: fraction of the environments whose episodes are held out and measure the fit.
    """

    rounds: int = 50
    rollout: int = 10
    updates: int = 200
    minibatch: int = 256
    gamma: float = 0.9975
    return_lambda: float = 1.0
    lr: float = 1e-3
    lr_final: float = 1e-4
    weight_decay: float = 1e-2
    hidden: list[int] = field(default_factory=lambda: [256, 256])
    members: int = 2
    aggregate: str = "mean"
    validation: float = 0.125
