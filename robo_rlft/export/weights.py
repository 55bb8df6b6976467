"""Plain networks as `weights.safetensors`: what a runtime needs to evaluate the policy without ONNX.

Every number between a raw observation and an action in the robot's units stands in the tensors or in the section
`native` of the manifest; docs/deploy/bundle.md has the evaluation step by step. Times are on a fixed grid, so that
their embeddings are a table of K rows and no runtime computes a sine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robo_rlft.export.graph import full_precision
from robo_rlft.export.manifest import TOLERANCE, WEIGHTS_FILE
from robo_rlft.export.native_format import FLOW_MLP, MLP, NativeNetwork
from robo_rlft.policies import Policy
from robo_rlft.policies.chains.step_sized import StepSized
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.networks.mlp import MLPVelocity

FLOWS = ("euler", "reinflow", "flow_sde", "flow_noise", "fpo", "shortcut", "mean_flow")
"""Chains whose deterministic path is Euler's from the given noise."""


def native_network(policy: Policy, prefix: int = 0) -> NativeNetwork | None:
    """The policy as plain layers, or None where it is made of something else.

    Plain are an MLP that reads vectors, followed by Euler's method (`FLOWS`) or taken as the mean (`gaussian`).

    Args:
        policy: in float32, on the CPU.
        prefix: P of a bundle with `export.rtc=prefix`.
    """
    chain, network = policy.config.chain.name, policy.network
    plain = type(policy) is Policy and isinstance(network, MLPVelocity) and not policy.image_keys
    if not plain or chain not in (*FLOWS, "gaussian"):
        return None
    assert isinstance(network, MLPVelocity)
    with torch.no_grad(), full_precision():
        layers = _flow_layers(policy, network) if chain in FLOWS else _mean_layers(policy, network)
    tensors = {**_observation(policy), **layers, **_action(policy)}
    return NativeNetwork(_section(policy, layers, prefix), tensors)


def _section(policy: Policy, layers: Mapping[str, np.ndarray], prefix: int) -> dict[str, Any]:
    flow, clip = "time" in layers, policy.config.chain.latent_clip
    return {
        "file": WEIGHTS_FILE,
        "kind": FLOW_MLP if flow else MLP,
        "activation": "silu",
        "steps": policy.chain.steps,
        "chunk": policy.event[0],
        "width": policy.event[1],
        "time_width": int(layers["time"].shape[1]) if flow else 0,
        "condition_width": policy.cond_width,
        "layers": sum(name.endswith(".weight") for name in layers),
        "latent_clip": clip if clip > 0 else None,
        "bounded": True,
        "observation": [_group(policy, key) for key in policy.vector_keys],
        "layer_norm_eps": None,
        "prefix": prefix,
        "tolerance": TOLERANCE,
    }


def _group(policy: Policy, key: str) -> dict[str, Any]:
    clip = policy.obs_affine(key).clip
    return {"key": key, "width": policy.robot.observation[key].shape[0], "clip": clip if clip > 0 else None}


def _observation(policy: Policy) -> dict[str, np.ndarray]:
    affine = [policy.obs_affine(key) for key in policy.vector_keys]
    return {
        f"observation.{i}.{name}": _array(getattr(a, name))
        for i, a in enumerate(affine)
        for name in ("offset", "scale")
    }


def _action(policy: Policy) -> dict[str, np.ndarray]:
    limits = policy.robot.action
    tensors = {"action.offset": _array(policy.action_norm.offset), "action.scale": _array(policy.action_norm.scale)}
    bounds = {"action.low": limits.low, "action.high": limits.high}
    return tensors | {name: np.asarray(values, np.float32) for name, values in bounds.items() if values}


def _flow_layers(policy: Policy, network: MLPVelocity) -> dict[str, np.ndarray]:
    """The layers over [chunk, constants of the step, condition], and those constants.

    What a chain tells the network beside the condition is a constant too, and moves before the condition.
    """
    times = torch.tensor(policy.chain.times)
    table = network.time(times)
    size, width, cond = policy.event[0] * policy.event[1], table.shape[1], policy.cond_width
    first = _linears(network)[0].weight
    if isinstance(policy.chain, StepSized):
        told = policy.chain.told(Cond(torch.zeros(len(times), cond))).vector[:, cond:]
        table = torch.cat([table, told], dim=1)
        at = size + width
        first = torch.cat([first[:, :at], first[:, at + cond :], first[:, at : at + cond]], dim=1)
    return _layers(network, first, _linears(network)[0].bias) | {"time": _array(table)}


def _mean_layers(policy: Policy, network: MLPVelocity) -> dict[str, np.ndarray]:
    """The layers over the condition: the path starts at 0 at t = 0, which goes into the first bias."""
    first, size = _linears(network)[0], policy.event[0] * policy.event[1]
    embedded = network.time(torch.zeros(1))[0].double()
    width = len(embedded)
    bias = first.bias.double() + first.weight[:, size : size + width].double() @ embedded
    return _layers(network, first.weight[:, size + width :], bias)


def _layers(network: MLPVelocity, weight: Tensor, bias: Tensor) -> dict[str, np.ndarray]:
    """All layers, the first one with the weight and bias given."""
    pairs = [(weight, bias), *((layer.weight, layer.bias) for layer in _linears(network)[1:])]
    return {
        f"layers.{i}.{name}": _array(values)
        for i, pair in enumerate(pairs)
        for name, values in zip(("weight", "bias"), pair, strict=True)
    }


def _linears(network: MLPVelocity) -> list[nn.Linear]:
    layers = [layer for layer in network.net if isinstance(layer, nn.Linear)]
    assert all(isinstance(layer, nn.Linear | nn.SiLU) for layer in network.net), "an MLP of SiLU only"
    return layers


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().float().numpy())
