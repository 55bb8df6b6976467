"""The whole state of an environment written in Python on top of MuJoCo, as arrays.

A `Snapshot` walks the objects of an environment. What it meets is data (numbers, text, arrays, containers of those), a
random generator, MuJoCo's model and state, something that never changes (spaces, functions, renderers), an object with
attributes of its own, or one that it cannot see into. With one of the last kind, the state cannot be saved.
"""

from __future__ import annotations

import dataclasses
import enum
import pickle
import re
import types
from collections import deque
from collections.abc import Iterator, MutableMapping, MutableSequence, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import gymnasium
import mujoco
import numpy as np
from jaxtyping import Float

from robo_rlft.envs.pool.single import Frame

World = tuple[mujoco.MjModel, mujoco.MjData]
"""One simulation."""
_SPARE_BYTES = 8192
"""Room for attributes to grow beyond twice their size at the beginning."""
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_LEFT_BEHIND = re.compile(
    r"x(pos|quat|mat|ipos|imat|anchor|axis)|(geom|site|cam|light)_x(pos|mat|dir)|subtree_(com|linvel|angmom)"
    r"|ten_(length|velocity)|actuator_(length|velocity|force)|c(dof|dof_dot|inert|vel|acc|frc_int|frc_ext)"
    r"|sensordata|energy|qacc|qacc_smooth|qfrc_\w+"
)
"""Fields of MjData that `mj_step` leaves behind, one substep late by design, and tasks read before the next step."""
_SET_BY_TASKS = re.compile(
    r"body_(pos|quat|mass|inertia|ipos|iquat)|geom_(pos|quat|size|rgba|friction|solref|solimp)|site_(pos|quat|size|rgba)"
    r"|jnt_(pos|axis|range|stiffness)|dof_(damping|armature|frictionloss)|actuator_(gainprm|biasprm|ctrlrange)"
    r"|eq_data|mat_rgba|cam_(pos|quat|fovy)|light_(pos|dir|diffuse)|hfield_(data|size)"
)
"""Fields of MjModel that tasks write when an episode begins or while it runs."""
_CONSTANT = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    type,
    re.Pattern,
    mujoco.MjModel,
    mujoco.MjvOption,
    mujoco.MjvCamera,
    gymnasium.Space,
    gymnasium.envs.registration.EnvSpec,
)
_DATA = (int, float, complex, str, bytes, bool, type(None), np.generic, np.dtype, enum.Enum, PurePath, range, slice)


class Snapshot:
    """Saves and restores what an environment's objects hold. Make it at the same point of every copy's life.

    Args:
        roots: objects to start from, or functions that return them, where they are made anew.
        worlds: simulations besides those found as attributes of one object, model and state side by side.
        constant: further types of objects that never change.

    Attributes:
        opaque: what it could not see into; empty where the state is exact.
    """

    def __init__(self, *roots: Any, worlds: Sequence[World] = (), constant: Sequence[type] = ()) -> None:
        self._roots, self._given = roots, tuple(worlds)
        self._constant = (*_CONSTANT, *constant)
        self._look()
        self._capacity = 0 if self.opaque else 2 * len(self._pickled()) + _SPARE_BYTES

    def save(self) -> Frame:
        """All of it, as arrays whose shapes do not change."""
        self._look()
        saved = self._pickled()
        if len(saved) > self._capacity:
            raise RuntimeError(f"the environment's attributes grew to {len(saved)} bytes, beyond {self._capacity}")
        padded = np.zeros(self._capacity, np.uint8)
        padded[: len(saved)] = np.frombuffer(saved, np.uint8)
        return {"attributes": padded, **{f"physics/{i}": pack(*world) for i, world in enumerate(self._worlds)}}

    def restore(self, state: Frame) -> None:
        """Put everything back in its place."""
        self._look()
        for i, (model, data) in enumerate(self._worlds):
            unpack(model, data, state[f"physics/{i}"])
        for (label, name), value in pickle.loads(state["attributes"].tobytes()).items():
            _put(self._holders[label], name, value)

    def _pickled(self) -> bytes:
        return pickle.dumps({place: _taken(value) for place, value in self._values.items()}, protocol=5)

    def _look(self) -> None:
        """Find every attribute anew: environments make and drop them as they go."""
        self._holders: dict[str, Any] = {}
        self._values: dict[tuple[str, Any], Any] = {}
        self._worlds, self.opaque = list(self._given), []
        self._seen: set[int] = set()
        for number, root in enumerate(self._roots):
            self._visit(root() if isinstance(root, types.FunctionType | types.MethodType) else root, str(number))

    def _visit(self, holder: Any, label: str) -> None:
        if id(holder) in self._seen:
            return
        self._seen.add(id(holder))
        self._holders[label] = holder
        members = dict(_members(holder))
        self._add_world([v for v in members.values() if isinstance(v, mujoco.MjModel | mujoco.MjData)])
        for name, value in members.items():
            self._sort(label, name, value)

    def _sort(self, label: str, name: Any, value: Any) -> None:
        if isinstance(value, self._constant) or _borrowed(value):
            return
        if _is_data(value):
            self._values[label, name] = value
        elif isinstance(value, mujoco.MjData):
            if all(value is not data for _, data in self._worlds):
                self.opaque.append(f"{label}.{name} (a simulation without its model)")
        elif _holds(value):
            self._visit(value, f"{label}.{name}")
        else:
            self.opaque.append(f"{label}.{name} ({type(value).__name__})")

    def _add_world(self, found: Sequence[Any]) -> None:
        models = [v for v in found if isinstance(v, mujoco.MjModel)]
        for data in found:
            new = isinstance(data, mujoco.MjData) and all(data is not known for _, known in self._worlds)
            if new and len(models) == 1:
                self._worlds.append((models[0], data))


def _members(holder: Any) -> Iterator[tuple[Any, Any]]:
    """What an object or a container holds, by attribute, key or index."""
    if isinstance(holder, MutableMapping):
        return iter(holder.items())
    if isinstance(holder, MutableSequence | tuple | deque):
        return iter(enumerate(holder))
    return iter(vars(holder).items())


def _holds(value: Any) -> bool:
    return isinstance(value, MutableMapping | MutableSequence | tuple | deque) or hasattr(value, "__dict__")


def _put(holder: Any, name: Any, value: Any) -> None:
    if isinstance(value, _Generator):
        value = value.into(_present(holder, name))
    if isinstance(holder, MutableMapping | MutableSequence):
        holder[name] = value
    elif not isinstance(holder, tuple):  # what a tuple holds directly cannot have changed
        vars(holder)[name] = value


def _present(holder: Any, name: Any) -> Any:
    return holder[name] if isinstance(holder, MutableMapping | MutableSequence | tuple) else vars(holder).get(name)


@dataclasses.dataclass(frozen=True)
class _Generator:
    """A random generator's state; it is restored in place, because objects share generators."""

    made: np.random.Generator | np.random.RandomState

    def into(self, generator: Any) -> Any:
        if isinstance(generator, np.random.Generator) and isinstance(self.made, np.random.Generator):
            generator.bit_generator.state = self.made.bit_generator.state
            return generator
        if isinstance(generator, np.random.RandomState) and isinstance(self.made, np.random.RandomState):
            generator.set_state(self.made.get_state())
            return generator
        return self.made


def _taken(value: Any) -> Any:
    return _Generator(value) if isinstance(value, np.random.Generator | np.random.RandomState) else value


def _is_data(value: Any) -> bool:
    if isinstance(value, (*_DATA, np.random.Generator, np.random.RandomState)):
        return True
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    if isinstance(value, dict):
        return all(_is_data(k) and _is_data(v) for k, v in value.items())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return all(_is_data(v) and not isinstance(v, np.random.Generator | np.random.RandomState) for v in value)
    return _is_frozen(value) and all(_is_data(v) for v in vars(value).values())


def _is_frozen(value: Any) -> bool:
    parameters = getattr(type(value), "__dataclass_params__", None)
    return parameters is not None and parameters.frozen and hasattr(value, "__dict__")


def _borrowed(value: Any) -> bool:
    """A view into a simulation's own memory, which is saved with the simulation."""
    while isinstance(value, np.ndarray):
        value = value.base
    return type(value).__name__ == "PyCapsule"


@lru_cache
def _fields(kind: type, pattern: re.Pattern[str]) -> tuple[str, ...]:
    return tuple(name for name in dir(kind) if pattern.fullmatch(name))


def _arrays(model: mujoco.MjModel, data: mujoco.MjData) -> Iterator[np.ndarray]:
    yield from (getattr(data, name) for name in _fields(type(data), _LEFT_BEHIND))
    yield from (getattr(model, name) for name in _fields(type(model), _SET_BY_TASKS))


def pack(model: mujoco.MjModel, data: mujoco.MjData) -> Float[np.ndarray, " entry"]:
    """A simulation as one vector: its state, what the last step left behind, and what tasks set in the model."""
    state = np.empty(mujoco.mj_stateSize(model, _STATE))
    mujoco.mj_getState(model, data, state, _STATE)
    return np.concatenate([state, *(array.ravel() for array in _arrays(model, data))])


def unpack(model: mujoco.MjModel, data: mujoco.MjData, packed: Float[np.ndarray, " entry"]) -> None:
    """Inverse of `pack`, in place; nothing is computed anew."""
    start = mujoco.mj_stateSize(model, _STATE)
    mujoco.mj_setState(model, data, packed[:start], _STATE)
    for array in _arrays(model, data):
        array[...] = packed[start : start + array.size].reshape(array.shape)
        start += array.size
