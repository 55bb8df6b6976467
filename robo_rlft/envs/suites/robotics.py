"""gymnasium-robotics (Fetch, FrankaKitchen, Adroit, mazes) on present MuJoCo."""

from __future__ import annotations

import importlib
import importlib.util
import types
from functools import cache

import gymnasium
import mujoco
import numpy as np

from robo_rlft.envs.suites.quiet import quiet

PACKAGE = "gymnasium_robotics"


@cache
def register() -> None:
    """Add its environments to Gymnasium's registry, where it is installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        return
    with quiet():
        gymnasium.register_envs(importlib.import_module(PACKAGE))
    if np.int32(mujoco.mjtJoint.mjJNT_HINGE) not in (mujoco.mjtJoint.mjJNT_HINGE,):
        _compare_joints_as_numbers()


def _compare_joints_as_numbers() -> None:
    """Let gymnasium-robotics 1.4.2 find its joints.

    Four functions of its `mujoco_utils` assert `model.jnt_type[j] in (mjtJoint.mjJNT_HINGE, ...)`, and since MuJoCo
    3.17 an enum no longer equals NumPy's integers from its own side. That module alone sees the four as numbers.
    """
    utils = importlib.import_module(f"{PACKAGE}.utils.mujoco_utils")
    joints = {name: int(kind) for name, kind in mujoco.mjtJoint.__members__.items()}
    seen = types.ModuleType("mujoco", mujoco.__doc__)
    vars(seen).update(vars(mujoco))
    vars(seen)["mjtJoint"] = types.SimpleNamespace(**joints)
    utils.mujoco = seen  # pyright: ignore[reportAttributeAccessIssue]
