"""ManiSkill's nested dictionaries of tensors as the named vectors of a `RobotSpec`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.spec import ArraySpec

STATES = ("task", "visual", "robot")
"""What the group `policy` holds: all of ManiSkill's state; what it gives beside images; the robot alone."""
_POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
_TWIST = ("x", "y", "z", "rx", "ry", "rz")
Path = tuple[str, ...]


@dataclass(frozen=True)
class VectorLayout:
    """Which leaves of an observation make up one vector, in which order.

    Attributes:
        paths: the leaves.
        names: of the vector's entries.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]

    @property
    def spec(self) -> ArraySpec:
        """The vector's specification."""
        return ArraySpec((len(self.names),), names=self.names)

    def rows(self, obs: Mapping[str, Any]) -> Float[Tensor, "env entry"]:
        """The vector of every environment."""
        return torch.cat([_rows(_at(obs, path)) for path in self.paths], dim=1)


def vector_layout(env: Any, obs: Mapping[str, Any], state: str) -> VectorLayout:
    """The vector that holds `state` of the observations of one task.

    Args:
        env: ManiSkill's environment.
        obs: one of its observations, obs_mode `state_dict`.
        state: one of `STATES`.

    Raises:
        ConfigError: an unknown `state`.
    """
    if state not in STATES:
        raise ConfigError(unknown_name("state", state, STATES))
    shown = None if state == "task" else _visual_extras(env) if state == "visual" else ()
    joints = _joint_names(env)
    paths = [path for path in _leaves(obs) if path[0] == "agent" or shown is None or path[1] in shown]
    names = [name for path in paths for name in _entry_names(path, _rows(_at(obs, path)).shape[1], joints)]
    return VectorLayout(tuple(paths), tuple(names))


def action_spec(env: Any, task: str) -> ArraySpec:
    """The action's names and bounds.

    Raises:
        ConfigError: the control mode leaves an entry without bounds.
    """
    low, high = (
        np.concatenate([np.asarray(getattr(box, end)).reshape(-1) for box in _boxes(env)]) for end in ("low", "high")
    )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConfigError(
            f"ManiSkill's {task} has no finite bounds of its actions with control_mode={env.control_mode}: choose one "
            f"of {', '.join(env.agent.supported_control_modes)} that has"
        )
    names = tuple(f"{whose}{name}" for whose, agent in _agents(env).items() for name in _action_names(agent))
    return ArraySpec((len(low),), names=names, low=tuple(map(float, low)), high=tuple(map(float, high)))


def action_scale(env: Any) -> list[float]:
    """What an action of 1 stands for, entry by entry: half the range where ManiSkill normalises, else 1.

    ManiSkill turns rotations of the hand the other way round: their range is that of its lower bound.
    """
    return [size for agent in _agents(env).values() for size in _agent_scale(agent)]


def robot_name(env: Any) -> str:
    """The uids of the robots."""
    return " ".join(agent.uid for agent in _agents(env).values())


def to_action(env: Any, action: Float[Tensor, "env action"]) -> Any:
    """The rows in the form that ManiSkill takes: one tensor, or one per robot."""
    space = env.single_action_space
    if not hasattr(space, "spaces"):
        return action
    widths = [box.shape[0] for box in space.spaces.values()]
    return dict(zip(space.spaces, action.split(widths, dim=1), strict=True))


def _boxes(env: Any) -> list[Any]:
    space = env.single_action_space
    return list(space.spaces.values()) if hasattr(space, "spaces") else [space]


def _agents(env: Any) -> dict[str, Any]:
    """Its robots, under what tells their entries apart: nothing where there is one."""
    several = getattr(env.agent, "agents_dict", None)
    return {f"{uid}/": agent for uid, agent in several.items()} if several else {"": env.agent}


def _action_names(agent: Any) -> Iterator[str]:
    controller = agent.controller
    for part, inner in getattr(controller, "controllers", {"": controller}).items():
        yield from _controller_names(part, inner)


def _agent_scale(agent: Any) -> Iterator[float]:
    controller = agent.controller
    for inner in getattr(controller, "controllers", {"": controller}).values():
        width = inner.single_action_space.shape[0]
        if not getattr(inner, "_normalize_action", False):
            yield from [1.0] * width
            continue
        bounds = inner._original_single_action_space
        yield from ((bounds.high - bounds.low) / 2).tolist()


def _controller_names(part: str, controller: Any) -> list[str]:
    width, joints = controller.single_action_space.shape[0], [joint.name for joint in controller.joints]
    if hasattr(controller, "ee_link"):
        return [f"{part}_{axis}" for axis in _TWIST[:width]]
    if width == len(joints):
        return joints
    return [part] if width == 1 and part else [f"{part or 'action'}_{i}" for i in range(width)]


def _joint_names(env: Any) -> list[str]:
    return [joint.name for joint in next(iter(_agents(env).values())).robot.get_active_joints()]


def _entry_names(path: Path, width: int, joints: list[str]) -> list[str]:
    label = "/".join(path[1:])
    if path[-1] in ("qpos", "qvel") and width == len(joints):
        return [f"{label}/{joint}" for joint in joints]
    if width == len(_POSE) and path[-1].endswith("pose"):
        return [f"{label}/{axis}" for axis in _POSE]
    if width == 3 and path[-1].endswith("pos"):
        return [f"{label}/{axis}" for axis in _POSE[:3]]
    return [label] if width == 1 else [f"{label}/{i}" for i in range(width)]


def _visual_extras(env: Any) -> Collection[str]:
    """What a task tells beside images: it asks for its own observation mode and leaves out what images show."""
    from mani_skill.envs.utils.observations import parse_obs_mode_to_struct

    mode, struct = env._obs_mode, env.obs_mode_struct
    env._obs_mode, env.obs_mode_struct = "rgb", parse_obs_mode_to_struct("rgb")
    try:
        return set(env._get_obs_extra(env.get_info()))
    finally:
        env._obs_mode, env.obs_mode_struct = mode, struct


def _leaves(tree: Mapping[str, Any], prefix: Path = ()) -> Iterator[Path]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*prefix, key))
        else:
            yield (*prefix, key)


def _at(tree: Mapping[str, Any], path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _rows(leaf: Any) -> Float[Tensor, "env entry"]:
    values = torch.as_tensor(leaf)
    return values.reshape(values.shape[0], -1).to(torch.float32)
