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
        last_scale: factor of the MLP's initial last layer: small starts the Gaussian chain near a zero mean, the flow's
            loss does not mind; 0 starts it at zero.
    """

    name: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: [512, 512, 512])
    time_dim: int = 16
    width: int = 64
    depth: int = 2
    heads: int = 4
    kernel: int = 5
    last_scale: float = 0.01


@dataclass
class ChainConfig:
    """How a network's output becomes a random path from noise to an action.

    Attributes:
        name: `euler` (deterministic flow), `reinflow` (learned bounded noise), `flow_sde` (noise of the flow's SDE),
            `flow_noise` (noise learned from the network's features), `fpo` (losses instead of likelihoods), `dsrl`
            (learned starting noise of a frozen flow), `shortcut` and `mean_flow` (flows for few steps), `ddpm` and
            `ddim` (diffusion) or `gaussian` (one step).
        steps: K, denoising steps (ReinFlow: 4; DPPO: 20, of DDIM 5). The Gaussian chain has one.
        latent_clip: bound of the mean of every transition, in normalised action units, or, in a diffusion, of the
            predicted action; 0 leaves it free (ReinFlow and DPPO: 1).
        noise_clip: sampled noise is cut at this many standard deviations; 0 leaves it free (ReinFlow and DPPO: 3).
        std_min: lower bound of learned noise (ReinFlow: Gym .10, Ant and Humanoid .08; Flow-Noise .08).
        std_max: upper bound of learned noise (ReinFlow: Gym .24, Ant and Humanoid .16; Flow-Noise .16).
        noise_hidden: widths of the noise network (ReinFlow: [64, 64] for state observations; Flow-Noise: [128, 64]), or
            of the network that chooses DSRL's starting noise.
        noise_bound: bound of the mean of DSRL's starting noise, in its standard deviations (Wagenmaker et al.: 1.5).
        init_std: initial standard deviation of the Gaussian chain.
        learn_std: train the standard deviation of the Gaussian chain.
        sde_noise: a of Flow-SDE, the size of its noise (piRL: .5).
        sde_steps: which of Flow-SDE's steps are random: `one` drawn anew for every chunk (piRL), or `all`.
        levels: noise levels a diffusion network is trained on; 0 takes as many as `steps`. DDIM may take fewer steps
            than there are levels (DPPO: 5 of 100).
        trained_steps: K_ft, last steps of a diffusion that are scored and trained; 0 takes all (DPPO: 10 of 20).
        sample_std_min: smallest standard deviation a diffusion's steps are sampled with (DPPO: .1).
        score_std_min: smallest standard deviation of its likelihood (DPPO: .1).
        eta: noise of DDIM relative to DDPM's, 0 .. 1 (DPPO fine-tunes with 1).
        finest: M, a power of two: a shortcut learns steps of 1/M and twice, four times ... that (Frans et al.: 128).
        span_share: share of a cloning batch that learns long steps: a shortcut's self-consistency, or the mean velocity
            over a span (Frans et al. and Geng et al.: .25).
        adaptive_power: p of the mean flow's weight 1 / (squared error + .001)^p of each row, 0 for none (adaptive as in
            Geng et al.; of 0, .5 and 1, .5 keeps the shares of two modes in one step best).
        fpo_pairs: pairs of noise and time per action in FPO's ratio (McAllister et al.: 8).
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
    noise_bound: float = 1.5
    init_std: float = 0.6
    learn_std: bool = True
    sde_noise: float = 0.5
    sde_steps: str = "one"
    levels: int = 0
    trained_steps: int = 0
    sample_std_min: float = 0.1
    score_std_min: float = 0.1
    eta: float = 1.0
    finest: int = 128
    span_share: float = 0.25
    adaptive_power: float = 0.5
    fpo_pairs: int = 8
    precision: str = "float32"


POOLS = ("spatial_softmax", "flat")
"""How an encoder's map becomes a vector."""


@dataclass
class EncoderConfig:
    """Images to features, one encoder for each camera of `policy.obs_keys`.

    Attributes:
        name: `resnet` (small, from scratch), `vit` (small, from scratch) or `efficientnet` (EfficientNet-Lite0 with
            ImageNet weights; needs the extra [vision]).
        width: channels of the ResNet's first level, or the transformer's model width.
        depth: levels of the ResNet, or layers of the transformer.
        heads: attention heads of the transformer.
        patch: side of the transformer's patches in pixels.
        pool: `spatial_softmax` (where things are, as in diffusion policy) or `flat`.
        points: attention maps of the spatial softmax, or channels that `flat` keeps (diffusion policy: 32).
        features: width of the features of one image.
        frozen: keep the trunk's weights; pooling and the last layer are trained.
        shift: largest random shift of images while cloning, in pixels; never when acting or scoring (DrQ: 4 of 84).
    """

    name: str = "resnet"
    width: int = 16
    depth: int = 2
    heads: int = 4
    patch: int = 8
    pool: str = "spatial_softmax"
    points: int = 32
    features: int = 64
    frozen: bool = False
    shift: int = 4


@dataclass
class PolicyConfig:
    """A policy: normaliser, encoder, network and chain.

    Attributes:
        obs_horizon: observations the policy sees, the present one last.
        chunk: actions it predicts per call.
        execute: actions of a chunk that are executed before the next call.
        obs_keys: observation groups it reads; `image/<camera>` is an image.
        obs_normaliser: `gaussian` (mean and standard deviation), `minmax` (to [-1, 1]) or `none`.
        action_normaliser: `minmax` or `bounds` (the action space's own limits).
        obs_clip: bound of normalised observations; 0 leaves them free.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    chain: ChainConfig = field(default_factory=ChainConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    obs_horizon: int = 1
    chunk: int = 4
    execute: int = 4
    obs_keys: list[str] = field(default_factory=lambda: ["policy"])
    obs_normaliser: str = "minmax"
    action_normaliser: str = "minmax"
    obs_clip: float = 5.0
