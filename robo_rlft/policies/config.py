"""Settings of policies. Every default names its source."""

from __future__ import annotations

from dataclasses import dataclass, field

PRECISIONS = ("float32", "bfloat16", "auto")
"""What networks may be computed in."""


@dataclass
class NetworkConfig:
    """A network from (noisy chunk, time, condition) to a velocity.

    Attributes:
        name: `mlp`, `unet1d` or `transformer`.
        hidden: widths of the MLP's layers (ReinFlow and DPPO use 512 x 3 on the Gym tasks).
        time_dim: width of the sinusoidal embedding of t.
        width: channels of the first U-Net level, or the transformer's model width.
        depth: levels of the U-Net, or layers of the transformer.
        heads: attention heads of the transformer.
        kernel: kernel of the U-Net's convolutions along the chunk (diffusion policy: 5).
    """

    name: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: [512, 512, 512])
    time_dim: int = 16
    width: int = 64
    depth: int = 2
    heads: int = 4
    kernel: int = 5


@dataclass
class ChainConfig:
    """How a network's velocity becomes a random path from noise to an action.

    Attributes:
        name: `euler` (deterministic flow), `reinflow` (learned bounded noise) or `gaussian` (one step).
        steps: K, denoising steps (ReinFlow: 4). The Gaussian chain has one.
        latent_clip: bound of the mean of every transition, in normalised action units; 0 leaves it free (ReinFlow: 1).
        noise_clip: sampled noise is cut at this many standard deviations; 0 leaves it free (ReinFlow: 3).
        std_min: lower bound of ReinFlow's noise (Gym .10, Ant and Humanoid .08).
        std_max: upper bound of ReinFlow's noise (Gym .24, Ant and Humanoid .16).
        noise_hidden: widths of ReinFlow's noise network ([64, 64] for state observations).
        init_std: initial standard deviation of the Gaussian chain.
        precision: what velocity, noise and value networks are computed in, sampling and likelihood alike: `float32`;
            `bfloat16`, which lets the gradients differ by about 1 %; `auto`, bfloat16 where that is the faster one.
            Densities, values and exported models stay in float32.
    """

    name: str = "euler"
    steps: int = 4
    latent_clip: float = 1.0
    noise_clip: float = 3.0
    std_min: float = 0.10
    std_max: float = 0.24
    noise_hidden: list[int] = field(default_factory=lambda: [64, 64])
    init_std: float = 0.6
    precision: str = "float32"


@dataclass
class PolicyConfig:
    """A policy: normaliser, encoder, network and chain.

    Attributes:
        obs_horizon: observations the policy sees, the present one last.
        chunk: actions it predicts per call.
        execute: actions of a chunk that are executed before the next call.
        obs_keys: observation groups it reads.
        obs_normaliser: `gaussian` (mean and standard deviation), `minmax` (to [-1, 1]) or `none`.
        action_normaliser: `minmax` or `bounds` (the action space's own limits).
        obs_clip: bound of normalised observations; 0 leaves them free.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    chain: ChainConfig = field(default_factory=ChainConfig)
    obs_horizon: int = 1
    chunk: int = 4
    execute: int = 4
    obs_keys: list[str] = field(default_factory=lambda: ["policy"])
    obs_normaliser: str = "minmax"
    action_normaliser: str = "minmax"
    obs_clip: float = 5.0
