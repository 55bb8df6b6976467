"""Physics of N environments in JAX: state rows go in, state rows and the fields a task reads come out.

A row is MuJoCo's own integration state (`mj_getState`), so that states travel between the CPU engine and this one. All
functions are pure and may be traced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Bool, Float
from mujoco import mjx

from robo_rlft.envs.mjx.devices import Place
from robo_rlft.envs.mjx.model import FRESHENED, POST, check_fields, put_model

Fields = dict[str, jax.Array]
_TOO_LARGE = 1e10
"""MuJoCo's own limit (mjMAXVAL) beyond which a position, velocity or acceleration means nothing."""
_COMPONENTS = {
    "TIME": "time",
    "QPOS": "qpos",
    "QVEL": "qvel",
    "ACT": "act",
    "WARMSTART": "qacc_warmstart",
    "CTRL": "ctrl",
    "QFRC_APPLIED": "qfrc_applied",
    "XFRC_APPLIED": "xfrc_applied",
    "EQ_ACTIVE": "eq_active",
    "MOCAP_POS": "mocap_pos",
    "MOCAP_QUAT": "mocap_quat",
    "USERDATA": "userdata",
}
"""Parts of the integration state in the order of the row."""


class Physics:
    """The compiled physics of one model.

    Args:
        task_id: for messages.
        model: with the options it is stepped with.
        outputs: derived fields to compute, and their shapes in MuJoCo.
        frame_skip: substeps per control step.
        fresh: compute position- and velocity-dependent fields at the state after the step.
        place: device and precision.

    Attributes:
        width: length of a state row.

    Raises:
        ConfigError: MJX lacks something of the model, or a field.
    """

    def __init__(
        self,
        task_id: str,
        model: mujoco.MjModel,
        outputs: Mapping[str, tuple[int, ...]],
        frame_skip: int,
        fresh: bool,
        place: Place,
    ) -> None:
        check_fields(task_id, model, tuple(outputs), fresh)
        self._model, self._template = put_model(task_id, model, place)
        self._outputs, self._frame_skip, self._dtype = dict(outputs), frame_skip, place.dtype
        self._fresh = tuple(n for n in outputs if fresh and (n in FRESHENED or n == "sensordata"))
        self._post = tuple(n for n in outputs if n in POST)
        self._parts = _parts(model, self._template)
        self._limited = np.array(model.actuator_forcelimited, bool)
        self._clamps = model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST and bool(self._limited.any())
        self.width = sum(stop - start for start, stop in self._parts.values())

    def is_state(self, name: str) -> bool:
        """Whether a field is part of the row."""
        return name in self._parts

    def field(self, rows: Float[jax.Array, "env state"], name: str) -> jax.Array:
        """One field of the state, [N, ...]."""
        start, stop = self._parts[name]
        return rows[:, start:stop].reshape(len(rows), *self._shape(name))

    def write(self, rows: Float[jax.Array, "env state"], name: str, values: jax.Array) -> Float[jax.Array, "env state"]:
        """Rows with new values of a state field."""
        start, stop = self._parts[name]
        values = jnp.broadcast_to(values, (len(rows), *self._shape(name)))
        return rows.at[:, start:stop].set(values.reshape(len(rows), -1).astype(rows.dtype))

    def advance(self, rows: Float[jax.Array, "env state"]) -> tuple[Float[jax.Array, "env state"], Fields]:
        """One control step of every environment.

        Returns:
            The rows after it, and the derived fields in MuJoCo's shapes.
        """
        return jax.vmap(self._advance)(rows)

    def unstable(self, rows: Float[jax.Array, "env state"]) -> Bool[jax.Array, " env"]:
        """Where MuJoCo itself would give a simulation up: a value that is not a number, or beyond all bounds."""
        moving = [rows[:, slice(*self._parts[name])] for name in ("qpos", "qvel", "qacc_warmstart")]
        return ~(jnp.abs(jnp.concatenate(moving, 1)) <= _TOO_LARGE).all(1)

    def _advance(self, row: Float[jax.Array, " state"]) -> tuple[Float[jax.Array, " state"], Fields]:
        state = self._unpack(row)
        empty = {name: jnp.zeros(shape, self._dtype) for name, shape in self._outputs.items()}
        state, outputs = jax.lax.fori_loop(0, self._frame_skip, self._substep, (state, empty))
        if self._fresh:
            outputs |= self._refreshed(state, outputs)
        return self._pack(state), outputs

    def _substep(self, i: jax.Array, before: tuple[Fields, Fields]) -> tuple[Fields, Fields]:
        data = self._stepped(self._template.replace(**before[0]))
        outputs = self._read(data, [n for n in self._outputs if n not in self._post])
        if self._post:  # wanted of the last substep alone
            last, kept = i == self._frame_skip - 1, {name: before[1][name] for name in self._post}
            outputs |= jax.lax.cond(last, lambda: self._forces(data), lambda: kept)
        return {name: getattr(data, name) for name in before[0]}, outputs

    def _stepped(self, data: mjx.Data) -> mjx.Data:
        if not self._clamps:
            return mjx.step(self._model, data)
        data = mjx.forward(self._model, data)
        return mjx.implicit(self._without_clamped(data), data)

    def _without_clamped(self, data: mjx.Data) -> mjx.Model:
        """The model for implicit integration, without the velocity gains of actuators at their limit of force.

        Such a force does not change with the velocity. MuJoCo leaves it out of the derivative, `mjx.step` does not.
        """
        model = self._model
        low, high = model.actuator_forcerange[:, 0], model.actuator_forcerange[:, 1]
        free = ~((data.actuator_force <= low) | (data.actuator_force >= high)) | ~self._limited
        gains = {name: getattr(model, name) * free[:, None] for name in ("actuator_gainprm", "actuator_biasprm")}
        return model.replace(**gains)

    def _forces(self, data: mjx.Data) -> Fields:
        return self._read(mjx.rne_postconstraint(self._model, data), self._post)

    def _refreshed(self, state: Fields, outputs: Fields) -> Fields:
        """Fields at the state itself; what MuJoCo also leaves from the last substep stays."""
        known = {"sensordata": outputs["sensordata"]} if "sensordata" in outputs else {}
        data = mjx.fwd_position(self._model, self._template.replace(**state, **known))
        data = mjx.fwd_velocity(self._model, mjx.sensor_pos(self._model, data))
        return self._read(mjx.sensor_vel(self._model, data), self._fresh)

    def _read(self, data: mjx.Data, names: Any) -> Fields:
        found = {name: getattr(data if name in _PUBLIC else data._impl, name) for name in names}
        return {name: values.reshape(self._outputs[name]).astype(self._dtype) for name, values in found.items()}

    def _unpack(self, row: Float[jax.Array, " state"]) -> Fields:
        like = self._template
        return {
            name: row[start:stop].reshape(self._shape(name)).astype(getattr(like, name).dtype)
            for name, (start, stop) in self._parts.items()
        }

    def _pack(self, state: Fields) -> Float[jax.Array, " state"]:
        return jnp.concatenate([state[name].reshape(-1).astype(self._dtype) for name in self._parts])

    def _shape(self, name: str) -> tuple[int, ...]:
        return getattr(self._template, name).shape


_PUBLIC = {field.name for field in mjx.Data.fields()}


def _parts(model: mujoco.MjModel, template: mjx.Data) -> dict[str, tuple[int, int]]:
    """Where each field of the state begins and ends in a row."""
    parts, start = {}, 0
    for component, name in _COMPONENTS.items():
        size = mujoco.mj_stateSize(model, int(getattr(mujoco.mjtState, f"mjSTATE_{component}")))
        if size != int(np.prod(getattr(template, name).shape)):
            raise RuntimeError(
                f"MJX keeps {getattr(template, name).shape} of '{name}' where MuJoCo keeps {size} numbers"
            )
        parts[name], start = (start, start + size), start + size
    if start != mujoco.mj_stateSize(model, int(mujoco.mjtState.mjSTATE_INTEGRATION)):
        raise RuntimeError("MuJoCo's integration state has parts that this version of robo_rlft does not know")
    return {name: part for name, part in parts.items() if part[1] > part[0]}
