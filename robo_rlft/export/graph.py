"""The policy as an ONNX model: deterministic path, K unrolled, normalisers and limits inside."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import numpy as np
import onnx
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from robo_rlft.export.manifest import GUIDANCE, OBSERVATION_PREFIX
from robo_rlft.policies import Policy
from robo_rlft.policies.guidance import GuidedPolicy

OPSET = 18


class DeterministicPolicy(nn.Module):
    """(noise x_0, observations in the order of `obs_keys`, then w of a guided policy) -> actions within the limits.

    The chain follows its means (the ODE of a flow, the mean of a Gaussian); the action's limits, which every
    simulator enforces itself, are part of the model so that no runtime can forget them.
    """

    low: Tensor
    high: Tensor

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = copy.deepcopy(policy).cpu().float().eval().requires_grad_(False)
        # Runtimes compute in float32, whatever the training used.
        self.policy.chain.config.precision = "float32"
        limits = policy.robot.action
        self.register_buffer("low", torch.tensor(limits.low or (-torch.inf,), dtype=torch.float32))
        self.register_buffer("high", torch.tensor(limits.high or (torch.inf,), dtype=torch.float32))

    def forward(
        self, noise: Float[Tensor, "env chunk action"], *inputs: Shaped[Tensor, "env ..."]
    ) -> Float[Tensor, "env chunk action"]:
        """Actions in the robot's units."""
        keys = self.policy.config.obs_keys
        obs = dict(zip(keys, inputs, strict=False))
        policy = self.policy
        cond = policy.encode(obs, inputs[-1]) if isinstance(policy, GuidedPolicy) else policy.encode(obs)
        path = self.policy.sample(cond, noise[None], deterministic=True)
        return torch.clamp(self.policy.to_robot(path.action), self.low, self.high)

    def answer(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Actions for model inputs by name, in full float32."""
        with torch.no_grad(), _full_precision():
            return self(*(torch.from_numpy(inputs[name]) for name in self.inputs)).numpy()

    @property
    def inputs(self) -> list[str]:
        """Names of the arguments of `forward`."""
        guidance = [GUIDANCE] if isinstance(self.policy, GuidedPolicy) else []
        return ["noise", *(OBSERVATION_PREFIX + key for key in self.policy.config.obs_keys), *guidance]


def to_onnx(module: DeterministicPolicy) -> bytes:
    """The model with a dynamic batch axis `N`, weights inside, and nothing about the machine that wrote it."""
    policy = module.policy
    keys = policy.config.obs_keys
    # Two rows: the exporter takes an axis of length 1 for a constant.
    dtypes = [torch.uint8 if k in policy.image_keys else torch.float32 for k in keys]
    shapes = [(2, policy.config.obs_horizon, *policy.robot.observation[k].shape) for k in keys]
    inputs = [torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    inputs += [torch.ones(2, 1)] if GUIDANCE in module.inputs else []
    with _quiet(), _full_precision():
        program = torch.onnx.export(
            module,
            (torch.zeros(2, *policy.event), *inputs),
            dynamo=True,
            opset_version=OPSET,
            input_names=module.inputs,
            output_names=["action"],
            dynamic_shapes=({0: "N"}, tuple({0: "N"} for _ in inputs)),
            verbose=False,
        )
    assert program is not None
    return _without_traces(program.model_proto).SerializeToString(deterministic=True)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes: stack traces with this machine's paths, larger than a small policy's weights."""
    graph = model.graph
    for item in [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph, model]:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for function in model.functions:
        function.ClearField("metadata_props")
        for node in function.node:
            node.ClearField("metadata_props")
    return model


@contextmanager
def _full_precision() -> Iterator[None]:
    """Matrix products in float32 whatever the training used: bfloat16 products would be off by 1e-3."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about optional packages and its own deprecations away from the user."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
