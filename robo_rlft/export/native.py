"""The C++ runtime (`deploy/runtime`) from Python: a bundle as a controller with limits, watchdog and real-time threads.

    runtime = Runtime("BUNDLE", joints=robot.joint_names)
    runtime.observe(now, {"policy": frame})       # the newest frame of each key, [width]; the runtime keeps the history
    runtime.joint_state(now, position, velocity)  # in the order of `joints`
    runtime.policy_step(now)                      # asks the policy, if there is something new to look at
    command = runtime.tick(now)                   # within every limit, whatever the policy said

In a simulation the caller makes the steps, on a robot `start()` makes the two threads; both are the same code. The
guarantees, the modes and their transitions: docs/deploy/runtime.md. Needs numpy and the library; imports no torch.
"""

from __future__ import annotations

import ctypes as c
import enum
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robo_rlft.errors import BundleError, ConfigError, RunError, SpecError, unknown_name
from robo_rlft.export.native_abi import ABI_VERSION, Library, LogState, Options, Report, Sizes, Status, ThreadOptions

LIBRARY = Path(__file__).with_name("librobo_rlft_runtime.so")
"""Built by `make runtime`."""
ONNXRUNTIME_VARIABLE = "ROBO_RLFT_ONNXRUNTIME"
"""Environment variable with the path of ONNX Runtime's library; without it the installed package's is taken."""
BACKENDS = {"automatic": 0, "native": 1, "onnx": 2}
INTERPOLATIONS = {"hold": 0, "linear": 1}
STITCHINGS = {"replace": 0, "ensemble": 1, "cross_fade": 2, "real_time": 3}
ESTOPS = {"hold": 0, "cut": 1}


class Mode(enum.IntEnum):
    """What the watchdog lets the robot do. A latch: only `Runtime.reset` leads back to WAIT."""

    WAIT = 0
    RUN = 1
    HOLD = 2
    RAMP = 3
    ESTOP = 4


class Fault(enum.IntFlag):
    """Why the policy may not move the robot."""

    OBSERVATION_STALE = 1
    JOINTS_STALE = 2
    CHUNK_SPENT = 4
    POLICY_LATE = 8
    POLICY_NOT_FINITE = 16
    POLICY_FAILED = 32
    CLOCK_BACKWARDS = 64
    CLOCK_FORWARDS = 128
    JOINTS_INVALID = 256
    STOPPED = 512
    NOT_READY = 1024
    JOINTS_OUTSIDE = 2048


class Clamp(enum.IntFlag):
    """What the safety filter changed in a command."""

    POSITION = 1
    VELOCITY = 2
    ACCELERATION = 4
    EFFORT = 8
    NOT_FINITE = 16


class Flag(enum.IntFlag):
    """What a command is. Without ENABLED nobody moves the robot: do not send it."""

    ENABLED = 1
    SPENT = 2
    EARLY = 4
    NEW_CHUNK = 8
    OVER_BUDGET = 16
    PREFIX_OVERRUN = 32
    EFFORT_CUT = 64


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        target: float64 [A], in the order and units of the bundle's action.
        effort: float64 [A], joint PD on a position target where the bundle has gains, or the target if it is an effort.
        mode: what the watchdog allows.
        flags: what the command is.
        faults: what is wrong in this tick.
        latched: what was wrong since RUN was left.
        clamped: what the safety filter changed in this tick.
        clamp_count: ticks in which it changed something.
        index: where in the chunk this is, (now - stamp) * rate; -1 without a chunk.
        now_ns: time of the tick.
        chunk_stamp_ns: time of the observation the chunk was made of.
    """

    target: np.ndarray
    effort: np.ndarray
    mode: Mode
    flags: Flag
    faults: Fault
    latched: Fault
    clamped: Clamp
    clamp_count: int
    index: float
    now_ns: int
    chunk_stamp_ns: int


@dataclass(frozen=True)
class Limits:
    """Limits in force, float64 [A] each, infinite where there is none, in the units of the targets."""

    low: np.ndarray
    high: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    effort: np.ndarray


@dataclass(frozen=True)
class LogStatus:
    """What became of the log: records written and lost, and why nothing more is written (empty: all is well)."""

    written: int
    dropped: int
    error: str


class Runtime:
    """A bundle in the C++ runtime.

    Args:
        bundle: folder with `runtime.json`.
        joints: names in the order in which `joint_state` will come, perhaps more than the bundle's; None: its order.
        backend: `native`, `onnx`, or `automatic`: native where the bundle has a native network.
        interpolation: `hold` an action for its control step, or go to the next one `linear`ly.
        stitching: where chunks meet: `replace`, `ensemble`, `cross_fade` or `real_time`.
        fade_s: length of a cross-fade.
        decay: exponent of an ensemble's weights, per chunk, the oldest chunk first.
        control_hz: ticks per second; None: the robot's rate.
        estop: what ESTOP does: `hold` the position, or `cut` the effort.
        inline_policy: `tick` asks the policy itself; native backend only.
        simulated_latency_s: a chunk is published this long after `policy_step`, for simulations.
        seed: of the noise.

    Raises:
        BundleError: the bundle is damaged, altered, does not reproduce its golden actions, or is none for this runtime.
        ConfigError: a setting that does not exist.
        SpecError: the robot lacks a joint of the bundle.
        RunError: the library is not built.
    """

    def __init__(
        self,
        bundle: Path | str,
        *,
        joints: Sequence[str] | None = None,
        backend: str = "automatic",
        interpolation: str = "hold",
        stitching: str = "replace",
        fade_s: float = 0.1,
        decay: float = 0.01,
        control_hz: float | None = None,
        estop: str = "hold",
        inline_policy: bool = False,
        simulated_latency_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._handle: int | None = None
        self._library = _library()
        options = Options(
            backend=_choice("backend", backend, BACKENDS),
            interpolation=_choice("interpolation", interpolation, INTERPOLATIONS),
            stitching=_choice("stitching", stitching, STITCHINGS),
            estop=_choice("estop", estop, ESTOPS),
            inline_policy=inline_policy,
            fade_s=fade_s,
            decay=decay,
            control_hz=control_hz or 0.0,
            simulated_latency_s=simulated_latency_s,
            seed=seed,
            onnx_library=onnxruntime_library().encode(),
        )
        self._handle = self._library.rr_create(os.fsencode(bundle), c.byref(options))
        if not self._handle:
            raise BundleError(self._error())
        self._read_sizes()
        self.joints = tuple(self._names(self._library.rr_joint_name))
        self.actions = tuple(self._names(self._library.rr_action_name))
        self.keys = self._read_keys()
        if joints is not None:
            self._bind(joints)

    def observe(self, stamp_ns: int, observation: Mapping[str, np.ndarray]) -> bool:
        """Take the newest frame of every key, float32 [width] as the model reads it.

        Returns:
            Whether it was taken: one that is not finite, or not newer than the last one, is not.

        Raises:
            SpecError: a key is missing or unknown, or has another width.
        """
        if set(observation) != set(self.keys):
            raise SpecError(f"the bundle reads observations {sorted(self.keys)}, got {sorted(observation)}")
        parts = [_vector(observation[key], width, np.float32, key) for key, width in self.keys.items()]
        return self._library.rr_observe(self._live, stamp_ns, _pointer(np.concatenate(parts), c.c_float)) == 0

    def joint_state(self, stamp_ns: int, position: np.ndarray, velocity: np.ndarray) -> bool:
        """Take measured joints, [J] in the order given to the constructor. Returns whether all of them are finite.

        Raises:
            SpecError: another number of joints.
        """
        q = _vector(position, self._sizes.given_joints, np.float64, "position")
        dq = _vector(velocity, self._sizes.given_joints, np.float64, "velocity")
        return self._library.rr_joint_state(self._live, stamp_ns, _pointer(q), _pointer(dq)) == 0

    def tick(self, now_ns: int) -> Command:
        """The command for this moment. Not while the threads run."""
        status, target, effort = Status(), np.zeros(len(self.actions)), np.zeros(len(self.actions))
        self._library.rr_tick(self._live, now_ns, c.byref(status), _pointer(target), _pointer(effort))
        return _command(status, target, effort)

    def policy_step(self, now_ns: int, noise: np.ndarray | None = None) -> bool:
        """Ask the policy if there is a new observation; returns whether there was. Not while the threads run.

        Args:
            now_ns: the present time.
            noise: x_0 of this chunk, [H, A]; None draws it.

        Raises:
            SpecError: noise of another shape.
        """
        if noise is not None:
            flat = np.ascontiguousarray(noise, np.float32)
            if flat.shape != (self._sizes.chunk, len(self.actions)):
                raise SpecError(f"noise must be [{self._sizes.chunk}, {len(self.actions)}], got {list(flat.shape)}")
            self._library.rr_set_noise(self._live, _pointer(flat, c.c_float))
        return self._library.rr_policy_step(self._live, now_ns) == 1

    def start(
        self,
        *,
        control_priority: int = 0,
        policy_priority: int = 0,
        control_cpu: int = -1,
        policy_cpu: int = -1,
        lock_memory: bool = False,
    ) -> None:
        """Start the control and the policy thread; stamps are then `now()`.

        Args:
            control_priority: SCHED_FIFO priority of the control thread, 0: ordinary scheduling.
            policy_priority: the same of the policy thread.
            control_cpu: processor the control thread is pinned to, -1: any.
            policy_cpu: the same of the policy thread.
            lock_memory: keep all memory of the process from being paged out.

        Raises:
            RunError: they run already.
        """
        options = ThreadOptions(control_priority, policy_priority, control_cpu, policy_cpu, lock_memory)
        self._check(self._library.rr_start(self._live, c.byref(options)), RunError)

    def stop(self) -> None:
        """Stop the threads, if they run."""
        self._library.rr_stop(self._live)

    def last_command(self) -> Command:
        """The newest command of the control thread."""
        status, target, effort = Status(), np.zeros(len(self.actions)), np.zeros(len(self.actions))
        self._library.rr_last_command(self._live, c.byref(status), _pointer(target), _pointer(effort))
        return _command(status, target, effort)

    def report(self) -> dict[str, float]:
        """Ticks, missed ones, and quantiles of wake latency and cycle time in microseconds, of the stopped threads."""
        report = Report()
        self._library.rr_get_report(self._live, c.byref(report))
        return {name: getattr(report, name) for name, *_ in Report._fields_}

    def missing_privileges(self) -> list[str]:
        """What the threads could not get, one sentence each."""
        return self._library.rr_missing_privileges(self._live).decode().splitlines()

    def reset(self) -> None:
        """Leave any mode for WAIT with the next tick."""
        self._library.rr_reset(self._live)

    def estop(self) -> None:
        """ESTOP with the next tick."""
        self._library.rr_estop(self._live)

    def log(self, path: Path | str | None) -> None:
        """Log every cycle from now on; None ends the log. A disk that fails stops the log and nothing else.

        Raises:
            RunError: the threads run.
        """
        self._check(self._library.rr_log(self._live, os.fsencode(path) if path is not None else None), RunError)

    def log_status(self) -> LogStatus:
        """What became of the log so far."""
        state = LogState()
        self._library.rr_get_log_status(self._live, c.byref(state))
        return LogStatus(state.written, state.dropped, os.strerror(state.error) if state.error else "")

    def tighten(self, velocity: np.ndarray | None = None, acceleration: np.ndarray | None = None) -> None:
        """Lower limits, [A] in the targets' units per second and per second squared. Before the first tick.

        Raises:
            ConfigError: one that is not above 0.
        """
        size = len(self.actions)
        free = np.full(size, np.inf)
        pair = [free if v is None else _vector(v, size, np.float64, "limits") for v in (velocity, acceleration)]
        self._check(self._library.rr_tighten(self._live, *(_pointer(v) for v in pair)), ConfigError)

    def set_workspace(self, pose: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        """Of cartesian actions: where the commanded pose starts, and the box it never leaves, [A] each.

        Raises:
            ConfigError: the actions are not cartesian, or the pose is outside.
        """
        arrays = [_vector(v, len(self.actions), np.float64, "workspace") for v in (pose, low, high)]
        self._check(self._library.rr_set_workspace(self._live, *(_pointer(v) for v in arrays)), ConfigError)

    @property
    def limits(self) -> Limits:
        """Limits in force."""
        arrays = [np.zeros(len(self.actions)) for _ in range(5)]
        self._library.rr_get_limits(self._live, *(_pointer(a) for a in arrays))
        return Limits(*arrays)

    @property
    def notes(self) -> list[str]:
        """Limits that the bundle does not have, one sentence each."""
        return self._library.rr_notes(self._live).decode().splitlines()

    @property
    def backend(self) -> str:
        """`native` or `onnx`."""
        return self._library.rr_backend(self._live).decode()

    @property
    def golden_error(self) -> float:
        """Largest difference from the golden actions on this machine."""
        return self._sizes.golden_error

    @property
    def rate_hz(self) -> float:
        """Control steps per second of the bundle's robot."""
        return self._sizes.rate_hz

    @property
    def execute(self) -> int:
        """Actions of a chunk that are meant to be executed before the next call of the policy."""
        return self._sizes.execute

    def now(self) -> int:
        """The threads' clock, in nanoseconds."""
        return self._library.rr_now()

    def close(self) -> None:
        """Stop the threads and end the log."""
        if self._handle:
            self._library.rr_destroy(self._handle)
        self._handle = None

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    @property
    def _live(self) -> int:
        if not self._handle:
            raise RunError("this runtime was closed: make another one")
        return self._handle

    def _bind(self, joints: Sequence[str]) -> None:
        names = (c.c_char_p * len(joints))(*(name.encode() for name in joints))
        self._check(self._library.rr_bind_joints(self._live, names, len(joints)), SpecError)
        self._read_sizes()

    def _read_sizes(self) -> None:
        self._sizes = Sizes()
        self._library.rr_get_sizes(self._live, c.byref(self._sizes))

    def _names(self, function: Any) -> list[str]:
        names = iter(lambda: function(self._live, len(found)), None)
        found: list[str] = []
        for name in names:
            found.append(name.decode())
        return found

    def _read_keys(self) -> dict[str, int]:
        width, keys = c.c_int32(), {}
        for i in range(self._sizes.keys):
            name = self._library.rr_key(self._live, i, c.byref(width)).decode()
            keys[name] = width.value
        return keys

    def _check(self, result: int, error: type[Exception]) -> None:
        if result != 0:
            raise error(self._error())

    def _error(self) -> str:
        return self._library.rr_error().decode(errors="replace")


def onnxruntime_library() -> str:
    """Path of ONNX Runtime's library: the environment variable's, else the installed package's; or empty."""
    if path := os.environ.get(ONNXRUNTIME_VARIABLE):
        return path
    package = importlib.util.find_spec("onnxruntime")
    folder = Path(package.origin).parent / "capi" if package and package.origin else None
    return str(next(iter(sorted(folder.glob("libonnxruntime.so*"))), "")) if folder else ""


def _library() -> Any:
    if not LIBRARY.is_file():
        raise RunError("the C++ runtime is not built: make runtime")
    library = Library(LIBRARY)
    if library.version != ABI_VERSION:
        raise RunError(f"{LIBRARY} is of another version than this package: make runtime")
    return library.functions


def _choice(setting: str, name: str, known: Mapping[str, int]) -> int:
    if name not in known:
        raise ConfigError(unknown_name(setting, name, known))
    return known[name]


def _vector(values: np.ndarray, size: int, dtype: type, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        vector = np.ascontiguousarray(values, dtype)
    if vector.shape != (size,):
        raise SpecError(f"'{name}' must have shape [{size}], got {list(vector.shape)}")
    return vector


def _pointer(array: np.ndarray, kind: Any = c.c_double) -> Any:
    return array.ctypes.data_as(c.POINTER(kind))


def _command(status: Status, target: np.ndarray, effort: np.ndarray) -> Command:
    return Command(
        target=target,
        effort=effort,
        mode=Mode(status.mode),
        flags=Flag(status.flags),
        faults=Fault(status.faults),
        latched=Fault(status.latched),
        clamped=Clamp(status.clamped),
        clamp_count=status.clamp_count,
        index=status.index,
        now_ns=status.now_ns,
        chunk_stamp_ns=status.chunk_stamp_ns,
    )
