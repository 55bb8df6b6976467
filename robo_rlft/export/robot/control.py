"""From observations to commands that a robot may be given: what stands between the policy's node and a bundle.

`Runtime` is all a node knows of it. `PythonRuntime` is the one here, on ONNX Runtime's Python interface: a chunk is
computed within the tick that needs it, so it is for policies that are quick against their period. What holds for
every command it gives, whatever the policy, the observations and their times:

    finite; within the limits; moved by at most velocity * dt since the last one; and once stopped, stopped.

Imports no torch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol

import numpy as np

from robo_rlft.errors import BundleError, ConfigError, SpecError, UserError, unknown_name
from robo_rlft.export.robot.description import Description, read_description
from robo_rlft.export.runtime import Controller


class Mode(IntEnum):
    """What a command is."""

    WAIT = 0
    """Nothing was observed yet: there is no command."""
    RAMP = 1
    """On the way to the default pose, because a hold lasted too long; news does not lead back."""
    RUN = 2
    """The policy's."""
    HOLD = 3
    """The last target, or no motion: the observations are too old."""
    STOP = 4
    """As a hold, until `reset`."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        target: one value per entry of the action, in the robot's units; NaN where there is none that could be sent.
        mode: what it is.
        flags: names of what was limited or wrong in this tick.
    """

    target: np.ndarray
    mode: Mode
    flags: frozenset[str] = frozenset()


class Runtime(Protocol):
    """A bundle that runs. Times are in ns of one clock."""

    description: Description

    @property
    def last_action(self) -> np.ndarray:
        """What the policy gave last, before scale, offset and limits: some policies observe it."""
        ...

    def observe(self, stamp_ns: int, observation: Mapping[str, np.ndarray]) -> None:
        """Take the newest observation: one row per key, in the robot's units."""
        ...

    def joint_state(self, stamp_ns: int, q: np.ndarray, dq: np.ndarray) -> None:
        """Take the measured joints, in the order of the bundle's joints."""
        ...

    def tick(self, now_ns: int) -> Command:
        """The command of this control step."""
        ...

    def reset(self) -> None:
        """Forget everything, a stop too."""
        ...

    def estop(self) -> None:
        """Stop until `reset`."""
        ...


RUNTIMES = ("python", "native")


def load_runtime(name: str, bundle: Path | str, seed: int = 0, threads: int = 1) -> Runtime:
    """A bundle on ONNX Runtime's Python interface (`python`) or on the C++ runtime (`native`).

    Raises:
        ConfigError: there is no such runtime.
        BundleError: the bundle is refused.
        RunError: the C++ runtime is not built.
    """
    if name not in RUNTIMES:
        raise ConfigError(unknown_name("runtime", name, RUNTIMES))
    if name == "python":
        return PythonRuntime(bundle, seed, threads)
    from robo_rlft.export.robot.native_runtime import NativeRuntime

    return NativeRuntime(bundle, seed)


class Limiter:
    """Targets within the limits, each at most one step from the one before.

    Args:
        description: of the bundle.

    Raises:
        BundleError: a commanded joint has no velocity limit.
    """

    def __init__(self, description: Description) -> None:
        action, joints = description.action, description.joints
        ends = action.offset + action.scale * np.stack([action.low, action.high])
        self.low, self.high = ends.min(0), ends.max(0)
        self.step = np.full(len(action.names), np.inf)
        if joints is not None and description.commands_positions:
            self.low = np.maximum(self.low, joints.position_low)
            self.high = np.minimum(self.high, joints.position_high)
            self.step = _known_velocity(description, joints.velocity) / description.rate_hz
        elif joints is not None and action.meaning in ("joint_velocity", "joint_effort"):
            bound = joints.velocity if action.meaning == "joint_velocity" else joints.effort
            self.low, self.high = np.maximum(self.low, -bound), np.minimum(self.high, bound)

    def __call__(self, target: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, frozenset[str]]:
        """The allowed target nearest to this one, and what was cut off."""
        inside = np.clip(target, self.low, self.high)
        moved = np.clip(inside, last - self.step, last + self.step)
        cut = {"position_limit": inside != target, "velocity_limit": moved != inside}
        return moved, frozenset(name for name, where in cut.items() if where.any())


class PythonRuntime:
    """A bundle on ONNX Runtime's Python interface. See `Runtime` and the module's docstring.

    Args:
        bundle: its folder.
        seed: of the policy's noise.
        threads: of one inference.

    Raises:
        BundleError: the bundle is refused, see `Controller`, or does not say what a node needs to know.
    """

    def __init__(self, bundle: Path | str, seed: int = 0, threads: int = 1) -> None:
        self.description = read_description(bundle)
        self._controller = Controller(bundle, threads)
        self._stage = self._controller.manifest.stage
        self._limit = Limiter(self.description)
        self._rng = np.random.default_rng(seed)
        self.reset()

    @property
    def last_action(self) -> np.ndarray:
        """What the policy gave last, before limits."""
        return self._action

    def reset(self) -> None:
        """See `Runtime`."""
        self._newest: dict[str, np.ndarray] | None = None
        self._stamp = self._held = 0
        self._measured: np.ndarray | None = None
        self._last: np.ndarray | None = None
        self._stopped, self._ramped, self._measured_ns = "", 0, 0
        self._action = np.zeros(len(self.description.action.names))
        self._forget()

    def estop(self) -> None:
        """See `Runtime`."""
        self._stopped = "emergency_stop"

    def observe(self, stamp_ns: int, observation: Mapping[str, np.ndarray]) -> None:
        """See `Runtime`. An older one than the present is ignored.

        Raises:
            SpecError: keys, shapes or values are not those of the policy; the present observation stays.
        """
        rows = {key: np.asarray(value, np.float32) for key, value in observation.items()}
        for key in self._stage.observation:
            wanted = self._controller.manifest.robot.observation[key].shape
            if key not in rows or rows[key].shape != wanted or not np.isfinite(rows[key]).all():
                raise SpecError(f"observation '{key}' must be {list(wanted)} finite numbers")
        if stamp_ns > self._stamp:
            self._newest, self._stamp = rows, stamp_ns

    def joint_state(self, stamp_ns: int, q: np.ndarray, dq: np.ndarray) -> None:
        """See `Runtime`."""
        if np.isfinite(q).all():
            self._measured, self._measured_ns = np.array(q, np.float64), stamp_ns

    def tick(self, now_ns: int) -> Command:
        """See `Runtime`."""
        if self._newest is None or (self._last is None and not self._place()):
            nothing = np.full(len(self._action), np.nan)
            return Command(nothing, Mode.STOP if self._stopped else Mode.WAIT, self._why())
        if self._stopped:
            return self._hold(Mode.STOP, self._why())
        age = (now_ns - self._stamp) * 1e-9
        if self._ramped or age > self.description.timing.observation_timeout_s:
            return self._stale(now_ns)
        return self._run()

    def _run(self) -> Command:
        if self._held:
            self._forget()
            self._held = 0
        try:
            self._action = self._next_action()
        except UserError:
            self._stopped = "policy_failed"
            return self._hold(Mode.STOP, self._why())
        return self._limited(self.description.action.target(self._action), Mode.RUN)

    def _limited(self, target: np.ndarray, mode: Mode, why: frozenset[str] = frozenset()) -> Command:
        assert self._last is not None
        self._last, flags = self._limit(target, self._last)
        return Command(self._last, mode, flags | why)

    def _stale(self, now_ns: int) -> Command:
        """A hold; when it has lasted too long the default pose, if the joints are still seen; then a stop."""
        timing, stale = self.description.timing, frozenset({"stale_observation"})
        self._held = self._held or now_ns
        if (now_ns - self._held) * 1e-9 <= timing.hold_s:
            return self._hold(Mode.HOLD, stale)
        blind = (now_ns - self._measured_ns) * 1e-9 > timing.observation_timeout_s
        if blind or not self.description.commands_positions or self._ramped >= timing.ramp_s * self.description.rate_hz:
            self._stopped = "hold_too_long"
            return self._hold(Mode.STOP, self._why())
        return self._limited(self._on_the_ramp(), Mode.RAMP, stale)

    def _on_the_ramp(self) -> np.ndarray:
        """The next place on the way to the default pose, which is counted in control steps."""
        joints = self.description.joints
        assert joints is not None
        assert self._last is not None
        left = self.description.timing.ramp_s * self.description.rate_hz - self._ramped
        self._ramped += 1
        return self._last + (joints.default - self._last) / max(left, 1.0)

    def _hold(self, mode: Mode, flags: frozenset[str]) -> Command:
        """Joints stay where they were sent; everything else is told to move no further."""
        assert self._last is not None
        if not self.description.commands_positions:
            self._last = np.zeros_like(self._last)
        return Command(self._last, mode, flags)

    def _why(self) -> frozenset[str]:
        return frozenset({self._stopped} - {""})

    def _place(self) -> bool:
        """Commands begin where the joints are; without a measurement there can be no first one."""
        if not self.description.commands_positions:
            self._last = np.zeros(len(self._action))
        elif self._measured is not None:
            self._last = self._measured.copy()
        return self._last is not None

    def _forget(self) -> None:
        """No history and no chunk of before a hold."""
        self._history: dict[str, deque[np.ndarray]] = {}
        self._chunk: np.ndarray | None = None
        self._index = 0

    def _next_action(self) -> np.ndarray:
        assert self._newest is not None
        for key in self._stage.observation:
            rows = self._history.setdefault(key, deque([self._newest[key]] * self._stage.obs_horizon))
            rows.append(self._newest[key])
            rows.popleft()
        if self._chunk is None or self._index == self._stage.execute:
            self._chunk, self._index = self._new_chunk(), 0
        action = self._chunk[self._index]
        if self._controller.manifest.residual is not None:
            action = self._corrected(action)
        self._index += 1
        if not np.isfinite(action).all():
            raise BundleError("the policy returned an action that is not finite")
        return action.astype(np.float64)

    def _new_chunk(self) -> np.ndarray:
        seen = {key: np.stack(rows)[None] for key, rows in self._history.items()}
        noise = self._rng.standard_normal((1, *self._controller.manifest.event), dtype=np.float32)
        return self._controller.act(seen, noise)[0]

    def _corrected(self, action: np.ndarray) -> np.ndarray:
        residual = self._controller.manifest.residual
        assert residual is not None
        assert self._newest is not None
        seen = {key: self._newest[key][None] for key in residual.observation}
        phase = np.array([[self._index / self._stage.execute]], np.float32)
        return self._controller.correct(seen, action[None], phase)[0]


def _known_velocity(description: Description, velocity: np.ndarray) -> np.ndarray:
    for name, limit in zip(description.action.names, velocity, strict=True):
        if not np.isfinite(limit):
            raise BundleError(
                f"joint '{name}' of the bundle has no velocity limit, without which no command is safe: give it in the "
                "environment or in the export's joints, and export again"
            )
    return velocity
