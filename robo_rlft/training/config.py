"""The whole configuration of a run: one typed tree. Recipes are YAML files that fill it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from robo_rlft.envs.images import ImagesConfig
from robo_rlft.learning.config import BCConfig, PPOConfig
from robo_rlft.policies.config import PolicyConfig


@dataclass
class EnvConfig:
    """Which environment, how many copies.

    Attributes:
        id: a registered name (`robo-rlft list`).
        num_envs: copies that step side by side.
        threads: simulation threads; 0 uses every core.
        params: the task's own parameters.
    """

    id: str = "ArmPegInsert"
    num_envs: int = 64
    threads: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    images: ImagesConfig = field(default_factory=ImagesConfig)


@dataclass
class CollectConfig:
    """Recording demonstrations.

    Attributes:
        episodes: episodes to keep.
        source: `expert` (the task's scripted expert) or the path of a run or checkpoint.
        keep: `success` or `all`.
        num_envs: copies that record side by side.
        deterministic: sample a policy without its exploration noise.
        max_attempts: episodes to try before giving up; 0 means 20 x episodes.
        params: task parameters while recording, over those of `env.params`.
    """

    episodes: int = 100
    source: str = "expert"
    keep: str = "success"
    num_envs: int = 64
    deterministic: bool = False
    max_attempts: int = 0
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluateConfig:
    """Evaluation on fixed seeds, the same for every method.

    Attributes:
        episodes: episodes; episode i starts from `seed` + i.
        seed: first seed, far from those of training.
        num_envs: copies that evaluate side by side.
        videos: episodes to film.
        camera: camera of the videos; empty takes the task's first.
        guidance: w of RLG: 0 is the policy before fine-tuning, 1 the fine-tuned one, more goes beyond it; null acts
            with the policy alone (or, with `run`, with the bundle's own weight).
        reference: run or checkpoint of the policy before fine-tuning; empty takes the one fine-tuning began with.
        steps: K, denoising steps of a flow; 0 takes those it was trained with.
    """

    episodes: int = 200
    seed: int = 1_000_000
    num_envs: int = 64
    videos: int = 2
    camera: str = ""
    guidance: float | None = None
    reference: str = ""
    steps: int = 0


@dataclass
class ExportConfig:
    """Writing a controller bundle.

    Attributes:
        dir: the bundle's folder; empty means `bundle` in the run's folder.
        checkpoint: which checkpoint of the run, `last` or `best`.
        overwrite: replace another bundle at that place.
        guidance: w of RLG that the bundle starts with; the model then takes it as an input. null exports the policy
            alone.
    """

    dir: str = ""
    checkpoint: str = "last"
    overwrite: bool = False
    guidance: float | None = None


@dataclass
class RunConfig:
    """Where a run lives and what it leaves.

    Attributes:
        dir: the run's folder; empty derives it from recipe, verb and seed under `runs/`.
        save_every: iterations (or thousands of BC steps) between checkpoints.
        eval_every: iterations between evaluations during training; 0 evaluates at the end only.
        eval_episodes: episodes of those evaluations.
        tensorboard: write TensorBoard events beside the plain metrics file.
        wandb: project name to log to Weights & Biases; empty does not.
        checkpoint: run folder or checkpoint to start from (`finetune`, `evaluate`, `export`).
        max_steps: stop after this many environment steps; 0 means the method's own limit.
        wall_seconds: stop after this much wall time; 0 means none.
        stop_return: stop when the mean return of the last 200 episodes reaches this; 0 means never.
    """

    dir: str = ""
    save_every: int = 10
    eval_every: int = 10
    eval_episodes: int = 100
    tensorboard: bool = True
    wandb: str = ""
    checkpoint: str = ""
    max_steps: int = 0
    wall_seconds: float = 0.0
    stop_return: float = 0.0


@dataclass
class DataConfig:
    """Demonstrations.

    Attributes:
        path: folder of the zarr data set.
        episodes: use only the first so many; 0 uses all.
    """

    path: str = ""
    episodes: int = 0


@dataclass
class Config:
    """Everything `robo-rlft VERB` reads. Precedence: defaults < recipe < command line.

    Attributes:
        recipe: `method/task`, a complete preset under configs/recipe.
        seed: seeds the weights, the exploration and the training environments.
        device: torch device of policy and learner.
        threads: torch threads; 0 uses every core.
        matmul: float32 matmul precision: `auto` (the faster safe one for this machine), `highest`, `high` or `medium`.
    """

    recipe: str = ""
    seed: int = 0
    device: str = "cpu"
    threads: int = 0
    matmul: str = "auto"
    env: EnvConfig = field(default_factory=EnvConfig)
    data: DataConfig = field(default_factory=DataConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    bc: BCConfig = field(default_factory=BCConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    run: RunConfig = field(default_factory=RunConfig)
