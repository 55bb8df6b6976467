"""The interface of every batched simulator: a Gymnasium vector environment that steps whole chunks.

All arrays are torch tensors on `BatchEnv.device`, batch first. An observation is a dict of groups
(`policy`, optional `critic`, `image/<camera>`), described by `BatchEnv.robot`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Dict as DictSpace
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robo_rlft.spec import ArraySpec, RobotSpec

Obs = dict[str, Tensor]
"""Observation groups; every tensor has the environments on its first axis."""
EnvState = dict[str, np.ndarray]
"""Everything that decides the future of some environments, one row each: physics, task, counters, RNG."""
Fidelity = Literal["exact", "drift", "none"]
Record = Literal["last", "all"]


@dataclass
class ChunkResult:
    """What `BatchEnv.step_chunk` returns. N environments, H control steps.

    Attributes:
        obs: observation to act on next, [N, ...]: that of a fresh episode where the old one ended.
        reward: reward produced by each step, [N, H]; 0 after the episode ended.
        terminated: the episode ended by the task's own rule within the chunk, [N].
        truncated: it ended by the time limit (or the NaN guard) within the chunk, [N].
        length: control steps really executed, 1..H, [N].
        final_obs: observation after the last executed step, before any reset, [N, ...].
        success: the task's success was reached within the chunk, [N].
        metrics: the figures of `BatchEnv.metrics` so far in each episode, [N]; final where it ended.
        trace: with record="all", the observations before the chunk and after each step, [N, H + 1, ...]; after the
            end of an episode its last observation is repeated. Else None.
    """

    obs: Obs
    reward: Float[Tensor, "env chunk"]
    terminated: Bool[Tensor, " env"]
    truncated: Bool[Tensor, " env"]
    length: Int[Tensor, " env"]
    final_obs: Obs
    success: Bool[Tensor, " env"]
    trace: Obs | None = None
    metrics: dict[str, Float[Tensor, " env"]] = field(default_factory=dict)

    @property
    def done(self) -> Bool[Tensor, " env"]:
        """The episode ended within the chunk, for whichever reason."""
        return self.terminated | self.truncated


class BatchEnv(gymnasium.vector.VectorEnv, ABC):
    """N copies of one task. See the module's docstring for the tensors.

    Ended environments reset in the same step (`AutoresetMode.SAME_STEP`): `step` returns the new episode's first
    observation and `info["final_obs"]` the old one's last. `info["success"]` is bool [N].
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - declared so by Gymnasium
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": ["rgb_array"],
    }
    robot: RobotSpec
    device: torch.device
    fidelity: Fidelity
    """How well `set_state(get_state())` reproduces the future."""
    drift: float = 0.0
    """With fidelity "drift": how far observations may be off 40 steps after a state was restored."""
    has_success: bool = False
    """The task defines success; without it `success` is always False and only returns are reported."""
    nan_resets: int = 0
    """Episodes ended by the NaN guard since the environment was made."""
    metrics: tuple[str, ...] = ()
    """Figures of an episode besides return and success (`crash`, `route_completion`), see `ChunkResult.metrics`."""
    cannot: Mapping[str, str] = {}
    """Rules of `envs.conformance` that this backend does not follow, by name, with the reason."""
    variants: tuple[str, ...] = ("",)
    """Ways to set up an episode (tasks, terrain levels, clearances), chosen by `set_variants`; one: always the same."""

    @abstractmethod
    def reset(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start a new episode in every environment (or those of `options["ids"]`; the returned obs is always [N, ...]).

        Args:
            seed: environment i gets seed + i, or one seed each; None continues each environment's own generator.
            options: `ids`: integer indices of the environments to reset. Others are the task's.
        """

    @abstractmethod
    def step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, actions: Float[Tensor, "env action"]
    ) -> tuple[Obs, Float[Tensor, " env"], Bool[Tensor, " env"], Bool[Tensor, " env"], dict[str, Any]]:
        """One control step in every environment."""

    @abstractmethod
    def step_chunk(self, actions: Float[Tensor, "env chunk action"], record: Record = "last") -> ChunkResult:
        """H control steps in one call; an environment that ends ignores its remaining actions and resets once."""

    def set_spaces(self) -> None:
        """Gymnasium's spaces, from `robot` and `num_envs`: the last thing a constructor does."""
        self.single_observation_space = DictSpace({k: space_of(v) for k, v in self.robot.observation.items()})
        self.single_action_space = space_of(self.robot.action)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def get_state(self, ids: Sequence[int] | None = None) -> EnvState:
        """Copy the full state of some environments (all by default), one row each."""
        raise TypeError(f"{type(self).__name__} declares fidelity '{self.fidelity}': it cannot save its state")

    def set_state(self, state: EnvState, ids: Sequence[int] | None = None) -> Obs:
        """Put environments into saved states; returns the observation of ALL environments, [N, ...]."""
        raise TypeError(f"{type(self).__name__} declares fidelity '{self.fidelity}': it cannot restore a state")

    @property
    def fork_fidelity(self) -> Fidelity:
        """How well `fork` gives equal futures: as well as states come back, or better where processes are forked."""
        return self.fidelity

    def fork(self, row: int, ids: Sequence[int]) -> Obs:
        """Put environments `ids` into the present state of environment `row`; returns the observation of all."""
        state = self.get_state([row])
        return self.set_state({k: np.repeat(v, len(ids), axis=0) for k, v in state.items()}, ids)

    @property
    def variant(self) -> Int[np.ndarray, " env"]:
        """Which of `variants` each environment's present episode is."""
        return np.zeros(self.num_envs, np.int64)

    def set_variants(self, variants: Sequence[int], ids: Sequence[int] | None = None) -> None:
        """Choose the variant of each environment's next episodes, from its next reset on."""
        raise TypeError(f"{type(self).__name__} has one variant of its task")

    @property
    def instructions(self) -> list[str]:
        """What each environment's present episode asks for, in words; empty where the task has no words."""
        return [""] * self.num_envs

    def render(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, ids: Sequence[int] | None = None, camera: str | None = None, size: tuple[int, int] = (240, 320)
    ) -> np.ndarray:
        """Images of some environments (all by default), uint8 [n, height, width, 3]."""
        raise TypeError(f"{type(self).__name__} cannot render")


def space_of(spec: ArraySpec) -> gymnasium.spaces.Box:
    """The Gymnasium box of one array."""
    if spec.dtype == "uint8":
        return gymnasium.spaces.Box(0, 255, spec.shape, np.uint8)
    low = np.broadcast_to(np.asarray(spec.low or -np.inf, spec.dtype), spec.shape)
    high = np.broadcast_to(np.asarray(spec.high or np.inf, spec.dtype), spec.shape)
    return gymnasium.spaces.Box(low, high, spec.shape, np.dtype(spec.dtype).type)
