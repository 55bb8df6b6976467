"""Real-time chunking: a chunk that goes on where the one before it, still being executed, will be.

While a chunk is computed the robot executes `delay` more actions of the previous one, `prefix`. Both ways take them as
inputs, in the robot's units, and return them unchanged at the chunk's beginning:

prefix   the committed actions stand in every point of the path, at its noise level, x_t = (1 - t) noise + t prefix
         (inpainting). A policy trained with a committed prefix (Black et al. 2025, arXiv 2512.05964) would know it.
guided   the path is drawn towards the previous chunk by its gradient (Black et al. 2025, arXiv 2506.07339):

    v'  = v + min(beta, (1 - t) / (t r^2)) J^T W (prefix - a(x)),    a(x) = x + (1 - t) v,  J = da/dx
    r^2 = (1 - t)^2 / (t^2 + (1 - t)^2)
    W_i = 1 for i < d;   c (e^c - 1) / (e - 1), c = (P - i) / (P - d + 1), for d <= i < P;   0 after that

Delay -1 says that there is no previous chunk: the policy as it is.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import vjp

from robo_rlft.errors import ConfigError
from robo_rlft.export.graph import DeterministicPolicy
from robo_rlft.export.manifest import DELAY, PREFIX, RTC
from robo_rlft.export.weights import FLOWS
from robo_rlft.policies import Policy
from robo_rlft.policies.condition import Cond

MAX_GUIDANCE = 5.0
"""beta (Black et al.)."""
Chunk = Float[Tensor, "env chunk action"]
Delay = Float[Tensor, "env 1"]


class ContinuedPolicy(DeterministicPolicy):
    """(noise x_0, observations, prefix, delay) -> actions within the limits, the committed ones first.

    Args:
        policy: a flow that starts from noise.
        prefix: P, actions of the previous chunk the model takes.

    Raises:
        ConfigError: the prefix is not shorter than the chunk.
    """

    def __init__(self, policy: Policy, prefix: int) -> None:
        check_prefix(policy, prefix)
        super().__init__(policy)
        self.prefix = prefix

    def forward(self, noise: Chunk, *inputs: Tensor) -> Chunk:
        """Actions in the robot's units."""
        *seen, prefix, delay = inputs
        policy = self.policy
        cond = policy.encode(dict(zip(policy.config.obs_keys, seen, strict=True)))
        whole = torch.cat([prefix, noise.new_zeros(1).expand_as(noise[:, self.prefix :])], dim=1)
        x, known = noise, policy.action_norm(whole)
        for t in policy.chain.times:
            x = self.step(cond, x, t, noise, known, delay)
        action = torch.clamp(policy.to_robot(x.clamp(-1, 1)), self.low, self.high)
        return torch.where(committed(delay, noise), whole, action)

    def step(self, cond: Cond, x: Chunk, t: float, noise: Chunk, known: Chunk, delay: Delay) -> Chunk:
        """From the path's point x at time t to the next one; `known` is the normalised prefix, zeros after it."""
        x = torch.where(committed(delay, x), (1 - t) * noise + t * known, x)
        return self.bounded(x + self.velocity(cond, t)(x) / self.policy.chain.steps)

    def velocity(self, cond: Cond, t: float) -> nn.Module:
        """x -> v(x, t)."""
        return _Velocity(self.policy, cond, t)

    def bounded(self, x: Chunk) -> Chunk:
        """A point of the path within the chain's `latent_clip`."""
        clip = self.policy.config.chain.latent_clip
        return x.clamp(-clip, clip) if clip > 0 else x

    @property
    def examples(self) -> dict[str, Tensor]:
        """See `ExportedModel.examples`."""
        width = self.policy.event[1]
        return {**super().examples, PREFIX: torch.zeros(2, self.prefix, width), DELAY: torch.zeros(2, 1)}


class GuidedContinuation(ContinuedPolicy):
    """The same by guidance: nothing is overwritten on the way, the whole overlap pulls."""

    differentiates = True

    def __init__(self, policy: Policy, prefix: int) -> None:
        super().__init__(policy, prefix)
        _replace_silu(self.policy.network)

    def step(self, cond: Cond, x: Chunk, t: float, noise: Chunk, known: Chunk, delay: Delay) -> Chunk:
        """See the module's equations."""
        velocity, pull, *_ = vjp(self.velocity(cond, t), x)
        error = overlap_weights(delay, self.prefix, x) * (known - (x + (1 - t) * velocity))
        gradient = error + (1 - t) * pull(error)[0]
        return self.bounded(x + (velocity + guidance_gain(t) * gradient) / self.policy.chain.steps)


class _Velocity(nn.Module):
    """The network at one time, for one condition."""

    def __init__(self, policy: Policy, cond: Cond, t: float) -> None:
        super().__init__()
        self._network, self._told, self._t = policy.network, policy.chain.told(cond), t

    def forward(self, x: Chunk) -> Chunk:
        return self._network(x, torch.full_like(x[:, 0, 0], self._t), self._told)


class _SiLU(nn.Module):
    """x sigmoid(x) in two operations: the gradient of torch's one operation fills memory in place, unknown to ONNX."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


def _replace_silu(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.SiLU):
            setattr(module, name, _SiLU())
        else:
            _replace_silu(child)


def continued(policy: Policy, rtc: str, prefix: int) -> DeterministicPolicy:
    """The model of a policy with one of `RTC`."""
    if rtc == RTC[0]:
        return DeterministicPolicy(policy)
    return ContinuedPolicy(policy, prefix) if rtc == "prefix" else GuidedContinuation(policy, prefix)


def check_continuable(policy: Policy, rtc: str) -> None:
    """Raise `ConfigError` unless chunks of this policy can continue each other in this way."""
    chain = policy.config.chain.name
    if type(policy) is not Policy or chain not in FLOWS:
        raise ConfigError(
            f"export.rtc needs a plain flow that starts from noise ({', '.join(FLOWS)}), this policy is a "
            f"{type(policy).__name__} with chain '{chain}': leave export.rtc=none"
        )
    if rtc == "guided" and policy.config.network.name == "unet1d":
        raise ConfigError(
            "export.rtc=guided needs the gradient of the network, which ONNX has not for unet1d: take export.rtc=prefix"
        )


def check_prefix(policy: Policy, prefix: int) -> None:
    """Raise `ConfigError` unless the previous chunk can have so many actions left."""
    chunk = policy.config.chunk
    if not 1 <= prefix < chunk:
        raise ConfigError(
            f"the prefix of real-time chunking has {prefix} actions, expected 1 to {chunk - 1}: a chunk of {chunk}, of "
            f"which {policy.config.execute} are executed, must leave some; set export.execute or export.prefix"
        )


def committed(delay: Delay, like: Chunk) -> Bool[Tensor, "env chunk 1"]:
    """Which entries of a chunk are committed."""
    return _index(like) < delay[:, :, None]


def overlap_weights(delay: Delay, prefix: int, like: Chunk) -> Float[Tensor, "env chunk 1"]:
    """W, one for committed entries and falling over the rest of the prefix; 0 for delay -1."""
    index, d = _index(like), delay[:, :, None]
    c = (prefix - index) / (prefix - d + 1)
    soft = c * torch.expm1(c) / math.expm1(1.0)
    overlapping = (index < prefix) & (d >= 0)
    return torch.where(overlapping, torch.where(index < d, torch.ones_like(soft), soft), torch.zeros_like(soft))


def guidance_gain(t: float, bound: float = MAX_GUIDANCE) -> float:
    """min(beta, (1 - t) / (t r^2)): infinite at t = 0, hence the bound."""
    return bound if t <= 0 else min(bound, (t**2 + (1 - t) ** 2) / (t * (1 - t)))


def _index(like: Chunk) -> Float[Tensor, "1 chunk 1"]:
    return torch.arange(like.shape[1], dtype=like.dtype, device=like.device)[None, :, None]
