"""The physics of N environments: a `mujoco.batch.Batch` with the fields a task reads, errors caught, rows saved.

Nothing here knows rewards or episodes; `engine` puts those on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import mujoco
import numpy as np
from mujoco.batch import DATA_FIELDS, MODEL_FIELDS, Batch, SimulationError

from robo_rlft.errors import ConfigError, unknown_name

_BAD = [
    int(w)
    for w in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
        mujoco.mjtWarning.mjWARN_BADCTRL,
    )
]
_POSITION_AND_VELOCITY = int(mujoco.mjtStage.mjSTAGE_VEL)


class Simulation:
    """N simulations of one model on a thread pool.

    Attributes:
        data: live arrays of the fields asked for, environment first. State fields (`qpos`, `ctrl` ...) may be written.
        model: the model all simulations share, before any per-environment values.
    """

    def __init__(
        self, model: mujoco.MjModel, num: int, threads: int, fields: Iterable[str], frame_skip: int, fresh: bool
    ) -> None:
        self.model, self.num, self.frame_skip = model, num, frame_skip
        # A persistent batch continues its next step from the derived fields computed at the end of this one.
        self.batch = Batch(model, num, threads, persistent=fresh)
        self._stage = _POSITION_AND_VELOCITY if fresh else int(mujoco.mjtStage.mjSTAGE_NONE)
        self.data: dict[str, np.ndarray] = {name: self._bind(name) for name in fields}
        self.outputs = tuple(n for n in self.data if n in DATA_FIELDS and not self.data[n].flags.writeable)
        self._last_bad = np.zeros(num, np.int64)
        self.batch.reset()

    def step(self, ids: np.ndarray | None = None) -> np.ndarray | None:
        """One control step (`frame_skip` substeps); returns the ids that broke, or None when none did."""
        try:
            self.batch.step(ids, self.frame_skip, self._stage)
        except SimulationError as error:
            return np.union1d(np.asarray(error.ids, np.int64), self._broken())
        return self._broken_or_none()

    def restart(self, ids: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Put simulations back to the model's defaults, then write some state fields and compute all others."""
        self.batch.reset(ids, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        for name, rows in values.items():
            self.batch.bind(name)[ids] = rows
        self.batch.forward(ids)
        self._last_bad[ids] = self._bad_counts()[ids]

    def forward(self, ids: np.ndarray) -> None:
        """Recompute every derived field at the present state."""
        self.batch.forward(ids)

    def overwrite(self, name: str, ids: np.ndarray, rows: np.ndarray) -> None:
        """Put back a derived field as it was saved: `forward` cannot make one that lags its state by a substep."""
        # The batch marks derived fields read-only because its next call overwrites them; until then these rows count.
        writable = self.data[name].view()
        writable.flags.writeable = True
        writable[ids] = rows

    def is_state(self, name: str) -> bool:
        """Whether `name` is a field of the state that may be written (`qpos`, `mocap_pos` ...)."""
        return name in DATA_FIELDS and self.batch.bind(name).flags.writeable

    def _bind(self, name: str) -> np.ndarray:
        if name in DATA_FIELDS:
            return self.batch.bind(name)
        if name in MODEL_FIELDS:
            return np.broadcast_to(getattr(self.model, name), (self.num, *np.shape(getattr(self.model, name))))
        raise ConfigError(unknown_name("MuJoCo field", name, DATA_FIELDS | MODEL_FIELDS))

    def _broken_or_none(self) -> np.ndarray | None:
        return self._broken() if self.batch.warning.any() else None

    def _broken(self) -> np.ndarray:
        counts = self._bad_counts()
        broken = np.flatnonzero(counts > self._last_bad)
        self._last_bad = counts
        return broken

    def _bad_counts(self) -> np.ndarray:
        return self.batch.warning[:, _BAD, 1].sum(axis=1, dtype=np.int64)
