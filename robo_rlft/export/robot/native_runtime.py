"""The C++ runtime (`deploy/runtime`) behind the policy's node, in the place of `control.PythonRuntime`.

The node makes the steps: each tick lets the policy look at what is new, then asks for the command. Where a bundle
observes its last action, it is that of the command, after limits: the C++ runtime tells no other. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robo_rlft.export import native
from robo_rlft.export.robot.control import Command, Mode
from robo_rlft.export.robot.description import read_description

_MODES = {
    native.Mode.WAIT: Mode.WAIT,
    native.Mode.RUN: Mode.RUN,
    native.Mode.HOLD: Mode.HOLD,
    native.Mode.RAMP: Mode.RAMP,
    native.Mode.ESTOP: Mode.STOP,
}


class NativeRuntime:
    """See `control.Runtime`.

    Args:
        bundle: its folder.
        seed: of the policy's noise.

    Raises:
        BundleError: the bundle is refused.
        RunError: the library is not built.
    """

    def __init__(self, bundle: Path | str, seed: int = 0) -> None:
        self.description = read_description(bundle)
        joints = self.description.joints
        self._runtime = native.Runtime(bundle, joints=None if joints is None else joints.names, seed=seed)
        self._action = np.zeros(len(self.description.action.names))

    @property
    def last_action(self) -> np.ndarray:
        """The action of the last command."""
        return self._action

    def observe(self, stamp_ns: int, observation: Mapping[str, np.ndarray]) -> None:
        """See `control.Runtime`."""
        self._runtime.observe(stamp_ns, observation)

    def joint_state(self, stamp_ns: int, q: np.ndarray, dq: np.ndarray) -> None:
        """See `control.Runtime`."""
        self._runtime.joint_state(stamp_ns, q, dq)

    def tick(self, now_ns: int) -> Command:
        """See `control.Runtime`."""
        self._runtime.policy_step(now_ns)
        found = self._runtime.tick(now_ns)
        flags = [f.name.lower() for kind in (found.faults, found.clamped) for f in kind if f.name]
        if not found.flags & native.Flag.ENABLED:
            return Command(np.full(len(found.target), np.nan), _MODES[found.mode], frozenset(flags))
        self._action = self.description.action.action(found.target)
        return Command(found.target, _MODES[found.mode], frozenset(flags))

    def reset(self) -> None:
        """See `control.Runtime`."""
        self._runtime.reset()
        self._action = np.zeros_like(self._action)

    def estop(self) -> None:
        """See `control.Runtime`."""
        self._runtime.estop()
