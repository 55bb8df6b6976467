"""The compiled stepper (`stepper.c`) from Python: what it is given, and whether it is there.

It is built where the package is installed with a C compiler. Without it `mujoco.batch` steps, with the same results bit
for bit. Each thread steps one environment at a time in its own MjData. So it may ask for the forces on bodies
(`cfrc_ext` ...) before the next one comes, and end an environment's chunk where its episode ends.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Mapping, Sequence
from ctypes import c_double, c_int, c_size_t, c_void_p
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float, Int, Integer
from mujoco.batch import Batch

from robo_rlft.envs.mujoco.post_constraint import UNSTABLE

INTERFACE = 1
"""Of the structs and functions below, as in `stepper.c`."""
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_FUNCTIONS = (
    "mj_setState",
    "mj_step",
    "mj_rnePostConstraint",
    "mj_getState",
    "mj_resetData",
    "_mjPRIVATE_setTlsLogHandler",
    "_mjPRIVATE_getGlobalLogHandler",
)
"""In the order of `Engine` in `stepper.c`. The last two are how MuJoCo's own bindings catch its errors."""


class Interval(NamedTuple):
    """Entries [first, first + count) of a simulation's state row that must lie between two bounds.

    Attributes:
        first: index into the row.
        width: how many entries.
        low, high: the bounds.
        closed: the bounds themselves are inside.
    """

    first: int
    width: int
    low: float
    high: float
    closed: bool


class _Field(ctypes.Structure):
    _fields_ = (("base", c_void_p), ("stride", c_size_t), ("bytes", c_size_t))


class _Range(ctypes.Structure):
    _fields_ = (("at", c_size_t), ("count", c_size_t), ("low", c_double), ("high", c_double), ("closed", c_int))


class _Setup(ctypes.Structure):
    _fields_ = (
        ("engine", c_void_p * len(_FUNCTIONS)),
        *((name, c_int) for name in ("sims", "threads", "frame_skip", "components")),
        ("rows", c_void_p),
        ("width", c_size_t),
        *((name, c_void_p) for name in ("models", "data", "warnings")),
        ("warning_stride", c_size_t),
        ("kinds", c_void_p),
        *((name, c_int) for name in ("nkinds", "nwarnings", "noutputs")),
        *((name, c_void_p) for name in ("outputs", "sources", "status", "inside")),
    )


class _Roll(ctypes.Structure):
    _fields_ = (
        ("steps", c_int),
        ("control", c_void_p),
        ("control_at", c_size_t),
        ("ncontrol", c_size_t),
        ("limits", c_void_p),
        ("nrecords", c_int),
        ("records", c_void_p),
        ("recordings", c_void_p),
    )


@cache
def load() -> ctypes.CDLL | str:
    """The compiled stepper, or why there is none."""
    files = [Path(__file__).with_name("_stepper" + suffix) for suffix in EXTENSION_SUFFIXES]
    built = next((path for path in files if path.exists()), None)
    if built is None:
        return "not compiled"
    if np.dtype(mujoco.MJTNUM_DTYPE) != np.float64:
        return f"MuJoCo computes in {np.dtype(mujoco.MJTNUM_DTYPE)}"
    try:
        library = ctypes.CDLL(str(built))
        _engine()
    except (OSError, AttributeError) as error:
        return " ".join(str(error).split())
    if library.stepper_interface() != INTERFACE:
        return "compiled from another version"
    library.stepper_new.restype = c_void_p
    library.stepper_new.argtypes = [c_void_p]
    library.stepper_delete.argtypes = [c_void_p]
    library.stepper_watch.argtypes = [c_void_p, c_void_p, c_int]
    library.stepper_step.argtypes = [c_void_p, c_void_p, c_int]
    library.stepper_roll.argtypes = [c_void_p, c_void_p]
    return library


def missing() -> str:
    """Why there is no compiled stepper; empty where there is one."""
    library = load()
    return library if isinstance(library, str) else ""


class NativeStepper:
    """Replaces `Batch.step` and `Batch.rollout` over the batch's own state rows.

    Args:
        library: from `load`.
        batch: whose states are stepped; it must not be persistent.
        outputs: writable arrays of derived fields to fill, simulation first.
        frame_skip: substeps per control step.
        post_constraint: end each control step with the forces on bodies.

    Attributes:
        inside: whether a simulation's last step ended within all watched intervals, bool [N], live.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        batch: Batch,
        outputs: Mapping[str, np.ndarray],
        frame_skip: int,
        post_constraint: bool,
    ) -> None:
        self._library, self._state = library, batch.state
        threads = max(1, min(batch.nthread, batch.nsim, os.cpu_count() or 1))
        self._data = [mujoco.MjData(batch.model) for _ in range(threads)]
        self._status, self.inside = np.zeros(batch.nsim, np.uint8), np.ones(batch.nsim, bool)
        self._models: Sequence[mujoco.MjModel] = [batch.model] * batch.nsim
        self._addresses = np.array([model._address for model in self._models], np.uintp)
        setup = self._setup(outputs, frame_skip, post_constraint)
        self._handle = library.stepper_new(ctypes.byref(setup))
        if not self._handle:
            raise MemoryError("no memory for the stepper")
        weakref.finalize(self, library.stepper_delete, self._handle)

    def watch(self, intervals: Sequence[Interval]) -> None:
        """Watch these intervals from now on: `inside` tells of them, and `roll` ends where one is left."""
        self._ranges = (_Range * len(intervals))(*intervals)
        self._library.stepper_watch(self._handle, ctypes.addressof(self._ranges), len(intervals))

    def use_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give every simulation a model of its own."""
        self._models = models
        self._addresses[:] = [model._address for model in models]

    def step(self, ids: Integer[np.ndarray, " row"] | None) -> Integer[np.ndarray, " row"] | None:
        """One control step; returns the ids that became unstable, None for none."""
        if ids is not None and not len(ids):
            return None
        if ids is None:
            broken = self._library.stepper_step(self._handle, None, 0)
        else:
            rows = np.ascontiguousarray(ids, np.int64)
            broken = self._library.stepper_step(self._handle, rows.ctypes.data, len(rows))
        return np.flatnonzero(self._status) if broken else None

    def roll(
        self,
        control: Float[np.ndarray, "env chunk control"],
        target: Float[np.ndarray, "env control"],
        limits: Int[np.ndarray, " env"],
        fields: Mapping[str, np.ndarray],
    ) -> tuple[dict[str, np.ndarray], Integer[np.ndarray, " row"]]:
        """H control steps of every simulation, or fewer where it leaves a watched interval or reaches its limit.

        Args:
            control: commands of each step.
            target: where in the state rows they go.
            limits: steps a simulation makes at most, at least 1.
            fields: live arrays to record after each step, simulation first.

        Returns:
            The recorded fields, [N, H, ...], from a simulation's end on the last ones repeated; and the ids that became
            unstable, whose records are incomplete.
        """
        steps = control.shape[1]
        control = np.ascontiguousarray(np.broadcast_to(control, (len(target), steps, target.shape[1])), np.float64)
        limits = np.ascontiguousarray(limits, np.int64)
        live = (_Field * len(fields))(*map(_field, fields.values()))
        records = {name: np.empty((len(a), steps, *a.shape[1:]), a.dtype) for name, a in fields.items()}
        recordings = np.array([r.ctypes.data for r in records.values()], np.uintp)
        roll = _Roll(
            steps,
            control.ctypes.data,
            (target.ctypes.data - self._state.ctypes.data) // self._state.itemsize,
            control.shape[2],
            limits.ctypes.data,
            len(live),
            ctypes.addressof(live),
            recordings.ctypes.data,
        )
        broken = self._library.stepper_roll(self._handle, ctypes.byref(roll))
        return records, np.flatnonzero(self._status) if broken else np.zeros(0, np.int64)

    def _setup(self, outputs: Mapping[str, np.ndarray], frame_skip: int, post_constraint: bool) -> _Setup:
        engine = _engine()
        if not post_constraint:
            engine[_FUNCTIONS.index("mj_rnePostConstraint")] = None
        counters = [data.warning.number for data in self._data]
        # What the setup points to stays alive with this object.
        self._data_addresses = np.array([data._address for data in self._data], np.uintp)
        self._warnings = np.array([counter.ctypes.data for counter in counters], np.uintp)
        self._kinds = np.array(UNSTABLE, np.int32)
        self._outputs = outputs
        self._fields = (_Field * len(outputs))(*map(_field, outputs.values()))
        self._sources = np.array([[getattr(d, n).ctypes.data for n in outputs] for d in self._data], np.uintp)
        return _Setup(
            engine=(c_void_p * len(_FUNCTIONS))(*engine),
            sims=len(self._state),
            threads=len(self._data),
            frame_skip=frame_skip,
            components=_STATE,
            rows=self._state.ctypes.data,
            width=self._state.shape[1],
            models=self._addresses.ctypes.data,
            data=self._data_addresses.ctypes.data,
            warnings=self._warnings.ctypes.data,
            warning_stride=counters[0].strides[0] // counters[0].itemsize,
            kinds=self._kinds.ctypes.data,
            nkinds=len(self._kinds),
            nwarnings=len(counters[0]),
            noutputs=len(outputs),
            outputs=ctypes.addressof(self._fields),
            sources=self._sources.ctypes.data,
            status=self._status.ctypes.data,
            inside=self.inside.ctypes.data,
        )


def _field(live: np.ndarray) -> _Field:
    row = live[0]
    if not row.flags.c_contiguous:
        raise ValueError(f"a field's rows must be contiguous, got strides {live.strides} for {live.shape}")
    return _Field(live.ctypes.data, live.strides[0], row.nbytes)


def _engine() -> list[Any]:
    """Addresses of MuJoCo's functions, in the library that the bindings have loaded."""
    package = Path(mujoco.__file__).parent
    found = sorted([*package.glob("libmujoco*.so*"), *package.glob("libmujoco*.dylib")])
    if not found:
        raise OSError(f"no libmujoco in {package}")
    library = ctypes.CDLL(str(found[0]))
    return [ctypes.cast(getattr(library, name), c_void_p).value for name in _FUNCTIONS]
