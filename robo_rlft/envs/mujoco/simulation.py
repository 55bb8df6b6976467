"""The physics of N environments: a `mujoco.batch.Batch`, the fields a task reads, and which environments broke.

Nothing here knows rewards or episodes; `episodes` puts those on top.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Float, Int, Integer
from mujoco.batch import DATA_FIELDS, MODEL_FIELDS, Batch, SimulationError

from robo_rlft.envs.mujoco import native
from robo_rlft.envs.mujoco.native import Interval, NativeStepper
from robo_rlft.envs.mujoco.post_constraint import POST_CONSTRAINT_FIELDS, UNSTABLE, PostConstraintStepper
from robo_rlft.errors import ConfigError, unknown_name

Ids = Integer[np.ndarray, " row"]
_STAGE_NONE = int(mujoco.mjtStage.mjSTAGE_NONE)
_STAGE_VELOCITY = int(mujoco.mjtStage.mjSTAGE_VEL)


@dataclass(frozen=True)
class Substeps:
    """Fields recorded by `Simulation.roll`: at the end of each control step, [N, H, ...]."""

    fields: Mapping[str, np.ndarray]
    suspect: Ids
    """Simulations that became unstable, whose records are incomplete."""


class Simulation:
    """N simulations of one model on a thread pool.

    Args:
        model: the model all start from.
        num: simulations, N.
        threads: of the pool; 0 takes all CPUs.
        fields: MjData fields the task reads, or MjModel fields (then one row per simulation as well).
        frame_skip: substeps per control step.
        fresh: compute position- and velocity-dependent fields at the state after the step.

    Attributes:
        data: live arrays of `fields`, simulation first. State fields (`qpos`, `ctrl` ...) may be written.
        outputs: names in `data` of derived fields, which the physics state does not contain.
        randomised: model fields with values per simulation.
        state: every simulation's full physics state, one row each, live.
    """

    def __init__(
        self, model: mujoco.MjModel, num: int, threads: int, fields: Sequence[str], frame_skip: int, fresh: bool
    ) -> None:
        self.num, self.frame_skip, self.fresh = num, frame_skip, fresh
        # A persistent batch continues its next step from the fields computed at the end of this one. Without `fresh`
        # it only costs: each simulation's own MjData falls out of the cache between steps.
        self.batch = Batch(model, num, threads, persistent=fresh)
        self.batch.reset(stage=_STAGE_NONE)
        self.state = self.batch.state
        self.randomised: tuple[str, ...] = ()
        self._fields: dict[str, np.ndarray] = {}
        self._are_state: dict[str, bool] = {}
        self._default_row = self.state[0].copy()
        self._stage = _STAGE_VELOCITY if fresh else _STAGE_NONE
        self.data: dict[str, np.ndarray] = {name: self._bind(name) for name in fields}
        self.outputs = tuple(n for n in self.data if n in DATA_FIELDS and not self.data[n].flags.writeable)
        self._post = tuple(n for n in self.outputs if n in POST_CONSTRAINT_FIELDS)
        self._stepper = self._make_stepper()
        self._models: list[mujoco.MjModel] = []
        self._given: frozenset[str] = frozenset()

    @property
    def model(self) -> mujoco.MjModel:
        """The model before any values per simulation."""
        return self.batch.model

    @property
    def rolls(self) -> bool:
        """Whether `roll` gives the fields this task reads; the batch's own has none computed after the last substep."""
        return isinstance(self._stepper, NativeStepper) or not (self.fresh or self._post)

    def watch(self, intervals: Sequence[Interval]) -> np.ndarray | None:
        """Let `roll` end a simulation where it leaves one of these intervals of its state.

        Returns:
            Whether each simulation's last step ended within all of them, bool [N], live; None without a compiled
            stepper: then nothing is watched.
        """
        if not isinstance(self._stepper, NativeStepper):
            return None
        self._stepper.watch(intervals)
        return self._stepper.inside

    def step(self, ids: Ids | None) -> Ids | None:
        """One control step of all simulations or of `ids`; returns the ids that became unstable, None for none."""
        if self._stepper is not None:
            return self._stepper.step(ids)
        try:
            self.batch.step(ids, self.frame_skip, self._stage)
        except SimulationError as error:
            return np.union1d(error.ids, self._warned(UNSTABLE))
        return self._warned(UNSTABLE) if np.count_nonzero(self.batch.warning) else None

    def roll(
        self,
        control: Float[np.ndarray, "env chunk control"],
        limits: Int[np.ndarray, " env"],
    ) -> Substeps:
        """H control steps of all simulations in one compiled call.

        With a compiled stepper, a simulation makes no more steps than its limit, at least 1, and none after it left a
        watched interval; its last records are repeated.
        """
        fields = {name: values for name, values in self.data.items() if name in DATA_FIELDS}
        if isinstance(self._stepper, NativeStepper):
            return Substeps(*self._stepper.roll(control, self.field("ctrl"), limits, fields))
        skip = self.frame_skip
        try:
            records = self.batch.rollout(control.shape[1] * skip, np.repeat(control, skip, axis=1), record=list(fields))
        except SimulationError as error:
            self._warned(slice(None))
            return Substeps({}, np.asarray(error.ids))
        ends = {name: rows[:, skip - 1 :: skip] for name, rows in records.items()}
        # The batch stops recording at any warning, not only at those that leave no meaningful state.
        return Substeps(ends, self._warned(slice(None)))

    def restart(self, ids: Ids, values: Mapping[str, np.ndarray], defaults: np.ndarray | None = None) -> None:
        """Put simulations back to the model's defaults, write some state fields, and compute the derived fields.

        Contact forces start at 0: they are those of a step, and none was made.

        Args:
            ids: which.
            values: state fields, one row each.
            defaults: rows of the state to begin with instead of the model's own.
        """
        self.state[ids] = self._default_row if defaults is None else defaults
        for name, rows in values.items():
            self.field(name)[ids] = rows
        if self.outputs:
            self.batch.forward(ids)
        for name in self._post:
            self.overwrite(name, ids, np.zeros(1))

    def save(self, ids: Ids, models: bool = True) -> dict[str, np.ndarray]:
        """Copy everything `load` needs to continue bit for bit, one row per simulation; on the same models, or not."""
        rows = {"physics": self.state[ids]}
        rows |= {f"output/{name}": self.data[name][ids] for name in self.outputs}
        if not models:
            return rows
        return rows | {f"model/{name}": self.batch.expand(name)[ids] for name in self._saved}

    def load(self, rows: Mapping[str, np.ndarray], ids: Ids) -> None:
        """Put saved rows into simulations `ids`."""
        for name in [key.removeprefix("model/") for key in rows if key.startswith("model/")]:
            self.randomise(name, rows[f"model/{name}"], ids)
        self.state[ids] = rows["physics"]
        # Only a persistent batch holds more than is written here. Computing also resets a state that is not finite.
        if self.outputs and self.fresh:
            self.batch.forward(np.unique(ids))
        for name in self.outputs:
            self.overwrite(name, ids, rows[f"output/{name}"])

    def give(self, fields: Mapping[str, np.ndarray], ids: Ids, constants: bool = False) -> None:
        """Write rows of model fields that whoever calls this can give again: they are no part of a saved state.

        Args:
            fields: all that differ from the model, those that MuJoCo derives from others included.
            ids: simulations.
            constants: let MuJoCo derive those others.
        """
        for name, rows in fields.items():
            self.batch.expand(name)[ids] = rows
        if constants and mujoco.MjModel._setconst_inputs & fields.keys():
            self.batch.set_const(np.unique(ids))
        new = [name for name in fields if name not in self.randomised]
        self._given |= set(new)
        self.randomised += tuple(new)
        self._follow(ids)

    def randomise(self, field: str, values: np.ndarray, ids: Ids) -> None:
        """Give simulations `ids` their own values of a model field, [n, ...] or anything that broadcasts to it."""
        if field not in MODEL_FIELDS:
            raise ConfigError(unknown_name("MuJoCo model field", field, MODEL_FIELDS))
        self.batch.expand(field)[ids] = values
        self.randomised = tuple(dict.fromkeys((*self.randomised, field)))
        self._given -= {field}
        if field in mujoco.MjModel._setconst_inputs or field.startswith("opt."):
            self.batch.set_const(np.unique(ids))
        self._follow(ids)

    def overwrite(self, name: str, ids: Ids, rows: np.ndarray) -> None:
        """Write a derived field: one saved with its state lags it by a substep, which no computation brings back."""
        _writable(self.data[name])[ids] = rows

    def interval(self, name: str, start: int, stop: int | None, low: float, high: float, closed: bool) -> Interval:
        """Entries of a state field as an interval of the state row."""
        entries = self.field(name)[:, start:stop]
        first = (entries.ctypes.data - self.state.ctypes.data) // self.state.itemsize
        return Interval(first, entries.shape[1], low, high, closed)

    def is_state(self, name: str) -> bool:
        """Whether `name` is a field of the physics state (`qpos`, `mocap_pos` ...)."""
        if name not in self._are_state:
            self._are_state[name] = name in DATA_FIELDS and self.field(name).flags.writeable
        return self._are_state[name]

    def field(self, name: str) -> np.ndarray:
        """The live array of an MjData field, simulation first."""
        if name not in self._fields:
            self._fields[name] = self.batch.bind(name)
        return self._fields[name]

    @property
    def _saved(self) -> list[str]:
        return [name for name in self.randomised if name not in self._given]

    def _follow(self, ids: Ids) -> None:
        """Whatever holds on to model values learns that those of `ids` have changed."""
        for name in [n for n in self.data if n in MODEL_FIELDS]:
            self.data[name] = self._bind(name)
        if self._stepper is None:
            return
        if not self._models:
            self._models, ids = [copy.copy(self.model) for _ in range(self.num)], np.arange(self.num)
        for i in ids:
            self._models[i] = self.batch.get_model(int(i), self._models[i])
        self._stepper.use_models(self._models)

    def _bind(self, name: str) -> np.ndarray:
        if name in DATA_FIELDS:
            return self.field(name)
        if name not in MODEL_FIELDS:
            raise ConfigError(unknown_name("MuJoCo field", name, DATA_FIELDS | MODEL_FIELDS))
        if self.randomised:  # perhaps this one, or one it is derived from
            return self.batch.expand(name)
        shared = np.asarray(getattr(self.model, name))
        return np.broadcast_to(shared, (self.num, *shared.shape))

    def _make_stepper(self) -> NativeStepper | PostConstraintStepper | None:
        """What steps instead of the batch, None for nothing."""
        if self._post and self.fresh:
            raise ConfigError(
                f"fields {', '.join(self._post)} are forces of the last substep and cannot be fresh: "
                "read a sensor instead, or set fresh=False"
            )
        outputs = {name: _writable(self.data[name]) for name in self.outputs}
        library = native.load()
        if not self.fresh and not isinstance(library, str):
            return NativeStepper(library, self.batch, outputs, self.frame_skip, bool(self._post))
        return PostConstraintStepper(self.batch, outputs, self.frame_skip) if self._post else None

    def _warned(self, kinds: slice | list[int]) -> Ids:
        """Simulations with such warnings since the last call; forgets all warnings."""
        counts = self.batch.warning[:, :, 1]
        warned = np.flatnonzero(counts[:, kinds].any(axis=1))
        counts[:] = 0  # MuJoCo restarts its counts when it resets a broken simulation: they do not tell the next one
        return warned


def _writable(bound: np.ndarray) -> np.ndarray:
    # The batch hands derived fields out read-only because its next call overwrites them; until then what is
    # written here counts.
    view = bound.view()
    view.flags.writeable = True
    return view
