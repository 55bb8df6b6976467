"""Steps that end with the forces on bodies (`cfrc_ext`, `cfrc_int`, `cacc`), as Gymnasium's Ant and Humanoid do.

MuJoCo computes these fields only on request, from the contacts of the last evaluation of the dynamics, which
`mujoco.batch` does not keep. Here each thread steps one environment at a time in its own MjData and asks for them
before the next one comes. Trajectories are those of the batch, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np
from jaxtyping import Integer
from mujoco.batch import Batch

POST_CONSTRAINT_FIELDS = frozenset({"cacc", "cfrc_ext", "cfrc_int"})
UNSTABLE = [
    int(kind)
    for kind in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
        mujoco.mjtWarning.mjWARN_BADCTRL,
    )
]
"""Warnings after which a simulation's state means nothing; MuJoCo's other warnings tell of full buffers."""
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class PostConstraintStepper:
    """Replaces `Batch.step` over the batch's own state rows.

    Args:
        batch: whose states are stepped.
        outputs: writable arrays of derived fields to fill, simulation first.
        frame_skip: substeps per control step.
    """

    def __init__(self, batch: Batch, outputs: Mapping[str, np.ndarray], frame_skip: int) -> None:
        self._frame_skip = frame_skip
        self._num = batch.nsim
        # Views made once: indexing an array costs more than copying these few numbers.
        self._rows = list(batch.state)
        self._targets = list(zip(*(list(values) for values in outputs.values()), strict=True))
        threads = max(1, min(batch.nthread, batch.nsim, os.cpu_count() or 1))
        self._data = [mujoco.MjData(batch.model) for _ in range(threads)]
        self._sources = [[getattr(data, name) for name in outputs] for data in self._data]
        self._models = [batch.model] * batch.nsim
        self._pool = ThreadPoolExecutor(threads - 1, "robo-rlft-step") if threads > 1 else None

    def use_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give every simulation a model of its own."""
        self._models = list(models)

    def step(self, ids: Integer[np.ndarray, " row"] | None) -> Integer[np.ndarray, " row"] | None:
        """One control step; returns the ids that became unstable, None for none."""
        # One iterator for all threads: each takes the next environment when it is done with its last.
        queue = iter(range(self._num) if ids is None else ids.tolist())
        if self._pool is None:
            broken = self._work(0, queue)
        else:
            others = [self._pool.submit(self._work, k, queue) for k in range(1, len(self._data))]
            broken = self._work(0, queue)
            broken += [i for other in others for i in other.result()]
        return np.unique(broken) if broken else None

    def _work(self, thread: int, queue: Iterator[int]) -> list[int]:
        data, sources, skip = self._data[thread], self._sources[thread], self._frame_skip
        warnings, none = data.warning.number, [0] * len(data.warning.number)
        broken: list[int] = []
        for i in queue:
            model, row = self._models[i], self._rows[i]
            try:
                mujoco.mj_setState(model, data, row, _STATE)
                mujoco.mj_step(model, data, skip)
                mujoco.mj_rnePostConstraint(model, data)
                mujoco.mj_getState(model, data, row, _STATE)
            except mujoco.FatalError:  # as in the batch: this one keeps its state, the others go on
                broken.append(i)
                continue
            for target, source in zip(self._targets[i], sources, strict=True):
                target[...] = source
            if warnings.tolist() != none:
                if warnings[UNSTABLE].any():
                    broken.append(i)
                warnings[:] = 0
        return broken
