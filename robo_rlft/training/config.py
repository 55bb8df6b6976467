"""The whole configuration of a run: one typed tree. Recipes are YAML files that fill it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.randomise import RandomiseConfig
from robo_rlft.learning.config import BCConfig, ChunkCriticConfig, CurriculumConfig, PPOConfig
from robo_rlft.policies.config import ChainConfig, NetworkConfig, PolicyConfig


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
    randomise: RandomiseConfig = field(default_factory=RandomiseConfig)


@dataclass
class CollectConfig:
    """Recording demonstrations.

    Attributes:
        episodes: episodes to keep.
        source: whose actions are recorded: `expert` (the task's scripted expert), the path of a run or checkpoint, or
            `plans:FILE` (actions planned elsewhere, played again from their seeds).
        actor: who acts instead, `expert` or a run, while `source` labels every state it visits (DAgger), both without
            exploration noise; empty lets the source act.
        teacher_share: with an actor, probability that an episode is the source's own.
        append: add the episodes to a data set that exists, from seeds it has not used.
        keep: `success` or `all`.
        num_envs: copies that record side by side.
        deterministic: sample a policy without its exploration noise.
        max_attempts: episodes to try before giving up; 0 means 20 x episodes.
        params: task parameters while recording, over those of `env.params`.
    """

    episodes: int = 100
    source: str = "expert"
    actor: str = ""
    teacher_share: float = 0.0
    append: bool = False
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
        candidates: M of SVDD: draws of every denoising step, one of which a critic chooses; 0 does not search, 1 draws
            the policy's own random steps.
        alpha: temperature of that choice, in units of the return; 0 takes the best.
        best_of: N of best-of-N: whole deterministic paths, one of which a critic chooses; 0 does not search.
        critic: run whose critic chooses; empty takes the run that is evaluated.
    """

    episodes: int = 200
    seed: int = 1_000_000
    num_envs: int = 64
    videos: int = 2
    camera: str = ""
    guidance: float | None = None
    reference: str = ""
    steps: int = 0
    candidates: int = 0
    alpha: float = 0.0
    best_of: int = 0
    critic: str = ""


@dataclass
class ExportConfig:
    """Writing a controller bundle.

    Attributes:
        dir: the bundle's folder; empty means `bundle` in the run's folder.
        checkpoint: which checkpoint of the run, `last` or `best`.
        overwrite: replace another bundle at that place.
        guidance: w of RLG that the bundle starts with; the model then takes it as an input. null exports the policy
            alone.
        execute: actions of a chunk to execute before the next call; 0 keeps `policy.execute`.
        rtc: real-time chunking, how a chunk goes on where the one before it will be: `none`; `prefix`, the committed
            actions stand in the path; `guided`, the path is drawn towards the previous chunk (twice the time).
        prefix: P, actions of the previous chunk that such a model takes; 0 takes those after `policy.execute`.
        robot_file: YAML with what the checkpoint does not say about the robot: joints, limits, terms, timing.
    """

    dir: str = ""
    checkpoint: str = "last"
    overwrite: bool = False
    guidance: float | None = None
    execute: int = 0
    rtc: str = "none"
    prefix: int = 0
    robot_file: str = ""


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
        builds_on: recipe whose runs stand in for those that this recipe does not have itself.
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
    builds_on: str = ""
    max_steps: int = 0
    wall_seconds: float = 0.0
    stop_return: float = 0.0


@dataclass
class ResidualConfig:
    """A residual policy that corrects every step of a frozen policy (ResiP, Ankile et al. 2024).

    Attributes:
        enabled: `finetune` trains corrections of the policy it starts from, which stays as it is.
        scale: size of the largest correction, in normalised action units (ResiP: .1).
        network: of the residual (ResiP: two layers of 256, the last one zero at first).
        chain: of the residual, Gaussian (ResiP: standard deviation e^-1, fixed).
    """

    enabled: bool = False
    scale: float = 0.1
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(hidden=[256, 256], last_scale=0.0))
    chain: ChainConfig = field(
        default_factory=lambda: ChainConfig(name="gaussian", steps=1, latent_clip=0.0, init_std=0.3679, learn_std=False)
    )

    @property
    def policy(self) -> PolicyConfig:
        """The residual as a policy of single steps, of what its environment has normalised already."""
        return PolicyConfig(
            network=self.network,
            chain=self.chain,
            chunk=1,
            execute=1,
            obs_normaliser="none",
            action_normaliser="bounds",
        )


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
        algorithm: what `finetune` does: `ppo` improves the policy; `chunk_critic` leaves it as it is and learns the
            value of its chunks.
        seed: seeds the weights, the exploration and the training environments.
        device: torch device of policy and learner.
        threads: torch threads; 0 uses every core.
        matmul: float32 matmul precision: `auto` (the faster safe one for this machine), `highest`, `high` or `medium`.
        compile: run the networks through torch.compile while fine-tuning; needs a C++ compiler on a CPU.
    """

    recipe: str = ""
    algorithm: str = "ppo"
    seed: int = 0
    device: str = "cpu"
    threads: int = 0
    matmul: str = "auto"
    compile: bool = False
    env: EnvConfig = field(default_factory=EnvConfig)
    data: DataConfig = field(default_factory=DataConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    residual: ResidualConfig = field(default_factory=ResidualConfig)
    bc: BCConfig = field(default_factory=BCConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    critic: ChunkCriticConfig = field(default_factory=ChunkCriticConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def learner(self) -> PolicyConfig:
        """The policy that `finetune` trains: the residual, or `policy` itself."""
        return self.residual.policy if self.residual.enabled else self.policy
