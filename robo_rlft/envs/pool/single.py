"""What a simulator that steps one environment at a time must offer to become a `BatchEnv`.

Write a `SingleEnv`, hand `PoolEnv` a picklable callable that makes it, and batches, chunks, automatic resets, shared
memory and worker processes follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from robo_rlft.envs.base import Fidelity
from robo_rlft.spec import RobotSpec

Frame = dict[str, np.ndarray]
"""Observation groups of one environment, without a batch axis."""


@dataclass(slots=True)
class Outcome:
    """What one control step produced.

    Attributes:
        reward: of this step.
        terminated: the task's own rule ended the episode.
        truncated: something else did (a time limit of the simulator's own; the pool adds `robot.max_episode_steps`).
        success: the task is done in this very state.
        metrics: the figures of `SingleEnv.metrics` so far in this episode.
    """

    reward: float
    terminated: bool = False
    truncated: bool = False
    success: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)


class SingleEnv(ABC):
    """One environment of a simulator. It lives in the process that made it.

    Attributes:
        robot: observation groups, the action and its bounds, rate, length of an episode.
        fidelity: how well `set_state(get_state())` reproduces the future.
        drift: see `BatchEnv.drift`.
        has_success: the task defines success.
        metrics: names of `Outcome.metrics`.
        variants: see `BatchEnv.variants`.
        instruction: what the present episode asks for, in words.
        has_expert: `expert_action` gives demonstrations.
        survives_fork: after `os.fork()` in the middle of an episode both processes go on, equally.
    """

    robot: RobotSpec
    fidelity: Fidelity = "none"
    drift: float = 0.0
    has_success: bool = False
    metrics: tuple[str, ...] = ()
    variants: tuple[str, ...] = ("",)
    instruction: str = ""
    has_expert: bool = False
    survives_fork: bool = False

    @abstractmethod
    def reset(self, seed: int, variant: int) -> None:
        """Start the episode that a seed and a variant decide."""

    @abstractmethod
    def step(self, action: Float[np.ndarray, " action"]) -> Outcome:
        """One control step. The action is finite and within its bounds; its memory belongs to the caller."""

    @abstractmethod
    def observe(self) -> Frame:
        """The present observation. In arrays that stay as they are.

        Asked for only where somebody looks: after every step, or at the end of a chunk.
        """

    def get_state(self) -> Frame:
        """Everything that decides the future, as arrays whose shapes never change; with fidelity other than `none`."""
        raise NotImplementedError

    def set_state(self, state: Frame) -> None:
        """Go on from a saved state."""
        raise NotImplementedError

    def expert_action(self) -> Float[np.ndarray, " action"]:
        """What an expert that may see everything would do now; with `has_expert`."""
        raise NotImplementedError

    def render(self, camera: str | None, size: tuple[int, int]) -> np.ndarray:
        """An image, uint8 [height, width, 3]; None is the default view."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of everything."""


SingleFactory = Callable[[], SingleEnv]
"""Makes one environment. Picklable: worker processes call it."""
