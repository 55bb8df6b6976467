"""Policies as ONNX models: deterministic path, K unrolled, normalisers and limits inside."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import onnx
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from robo_rlft.export.manifest import BASE_ACTION, GUIDANCE, NORMALISED, OBSERVATION_PREFIX, PHASE, ROBOT_UNITS
from robo_rlft.policies import Policy
from robo_rlft.policies.guidance import GuidedPolicy
from robo_rlft.policies.residual import ResidualPolicy
from robo_rlft.spec import POLICY_KEY, ArraySpec

OPSET = 18


class ExportedModel(nn.Module, ABC):
    """A part of a policy as a function of named inputs to `action`, in float32 as runtimes compute it."""

    low: Tensor
    high: Tensor
    differentiates = False
    """There is a gradient in it."""

    def __init__(self, policy: Policy, limits: ArraySpec) -> None:
        super().__init__()
        self.policy = copy.deepcopy(policy).cpu().float().eval().requires_grad_(False)
        self.policy.chain.config.precision = "float32"
        self.register_buffer("low", torch.tensor(limits.low or (-torch.inf,), dtype=torch.float32))
        self.register_buffer("high", torch.tensor(limits.high or (torch.inf,), dtype=torch.float32))

    @property
    @abstractmethod
    def examples(self) -> dict[str, Tensor]:
        """Two rows of each argument of `forward` by name: the exporter takes an axis of length 1 for a constant."""

    def answer(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Actions for model inputs by name, in full float32."""
        with torch.no_grad(), full_precision():
            return self(*(torch.from_numpy(inputs[name]) for name in self.examples)).numpy()


class DeterministicPolicy(ExportedModel):
    """(noise x_0, observations in the order of `obs_keys`, then w of a guided policy) -> actions within the limits.

    The chain follows its means (the ODE of a flow, the mean of a Gaussian); the action's limits, which every
    simulator enforces itself, are part of the model so that no runtime can forget them.

    Args:
        policy: the policy.
        units: of the actions; `normalised` for the base of a residual, whose model then keeps the limits.
    """

    def __init__(self, policy: Policy, units: str = ROBOT_UNITS) -> None:
        super().__init__(policy, policy.robot.action)
        self.units = units

    def forward(
        self, noise: Float[Tensor, "env chunk action"], *inputs: Shaped[Tensor, "env ..."]
    ) -> Float[Tensor, "env chunk action"]:
        """Actions in the robot's units."""
        keys = self.policy.config.obs_keys
        obs = dict(zip(keys, inputs, strict=False))
        policy = self.policy
        cond = policy.encode(obs, inputs[-1]) if isinstance(policy, GuidedPolicy) else policy.encode(obs)
        path = self.policy.sample(cond, noise[None], deterministic=True)
        if self.units == NORMALISED:
            return path.action
        return torch.clamp(self.policy.to_robot(path.action), self.low, self.high)

    @property
    def examples(self) -> dict[str, Tensor]:
        """See `ExportedModel.examples`."""
        policy = self.policy
        specs = {key: policy.robot.observation[key] for key in policy.config.obs_keys}
        seen = {
            OBSERVATION_PREFIX + key: torch.zeros(2, policy.config.obs_horizon, *spec.shape, dtype=_dtype(spec))
            for key, spec in specs.items()
        }
        guidance = {GUIDANCE: torch.ones(2, 1)} if isinstance(policy, GuidedPolicy) else {}
        return {"noise": torch.zeros(2, *policy.event), **seen, **guidance}


class CorrectedAction(ExportedModel):
    """(next action of the base's chunk, phase, newest observations) -> the corrected action within the limits."""

    policy: ResidualPolicy

    def __init__(self, policy: ResidualPolicy) -> None:
        super().__init__(policy, policy.base.robot.action)

    def forward(
        self,
        base_action: Float[Tensor, "env action"],
        phase: Float[Tensor, "env 1"],
        *newest: Float[Tensor, "env width"],
    ) -> Float[Tensor, "env action"]:
        """The action in the robot's units."""
        policy = self.policy
        seen = policy.features(dict(zip(policy.base.vector_keys, newest, strict=True)), base_action, phase)
        start = torch.zeros_like(base_action)[None, :, None]
        path = policy.sample(policy.encode({POLICY_KEY: seen[:, None]}), start, deterministic=True)
        return torch.clamp(policy.corrected(base_action, path.action[:, 0]), self.low, self.high)

    @property
    def examples(self) -> dict[str, Tensor]:
        """See `ExportedModel.examples`."""
        base = self.policy.base
        seen = {k: torch.zeros(2, *base.robot.observation[k].shape) for k in base.vector_keys}
        known = {BASE_ACTION: torch.zeros(2, base.event[1]), PHASE: torch.zeros(2, 1)}
        return {**known, **{OBSERVATION_PREFIX + key: rows for key, rows in seen.items()}}


def _dtype(spec: ArraySpec) -> torch.dtype:
    return torch.uint8 if spec.dtype == "uint8" else torch.float32


def to_onnx(module: ExportedModel) -> bytes:
    """The model with a dynamic batch axis `N`, weights inside, and nothing about the machine that wrote it.

    A model with a gradient inside (`differentiates`) is traced, and takes one row at a time.
    """
    return _traced(module) if module.differentiates else _exported(module)


def _traced(module: ExportedModel) -> bytes:
    """The exporter does not follow a gradient; its operations are recorded first, for rows it then cannot vary."""
    examples = {name: rows[:1] for name, rows in module.examples.items()}
    # Fused attention has a backward operation of its own, which ONNX does not know.
    with _quiet(), full_precision(), sdpa_kernel(SDPBackend.MATH):
        table: Any = core_aten_decompositions()
        graph = make_fx(module, decomposition_table=table)(*examples.values())
        program = torch.onnx.export(
            graph,
            tuple(examples.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=["action"],
            verbose=False,
        )
    assert program is not None
    return _without_traces(program.model_proto).SerializeToString(deterministic=True)


def _exported(module: ExportedModel) -> bytes:
    examples = module.examples
    named = [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind != p.VAR_POSITIONAL]
    rows = {0: "N"}
    with _quiet(), full_precision():
        program = torch.onnx.export(
            module,
            tuple(examples.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=["action"],
            dynamic_shapes=(*(rows for _ in named), tuple(rows for _ in list(examples)[len(named) :])),
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
def full_precision() -> Iterator[None]:
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
