"""What a served policy takes, and what a client's message therefore means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robo_rlft.errors import ConfigError, SpecError, unknown_name
from robo_rlft.export.manifest import (
    DELAY,
    GUIDANCE,
    NO_PREFIX,
    OBSERVATION_PREFIX,
    PREFIX,
    RESIDUAL,
    Manifest,
    input_dtype,
)

POLICY = "policy"
"""The stage that gives chunks; the other one is `residual`."""
NOISE = "noise"
REQUEST, STAMP, STAGE = "request", "stamp_ns", "stage"
"""Keys beside the inputs: a client's number of a request, the observation's time, and which stage it asks."""
ACTIONS, TIMING, SUPERSEDED, ERROR, KIND = "actions", "server_timing", "superseded", "error", "kind"
"""Keys of an answer."""


MAX_KEY = 200
"""Longest key in characters: refusals repeat it."""


@dataclass(frozen=True)
class Request:
    """One message, understood.

    Attributes:
        stage: `policy` or `residual`.
        rows: how many robots it speaks of.
        single: it came without an axis of rows, and so does the answer.
        arrays: model inputs by name, rows first; `noise` is missing where the client sent none.
        text: text inputs by name.
        echo: `request` and `stamp_ns` as they came, for the answer.
    """

    stage: str
    rows: int
    single: bool
    arrays: Mapping[str, np.ndarray]
    text: Mapping[str, str] = field(default_factory=dict)
    echo: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> tuple[object, ...]:
        """Requests of one kind may be computed together."""
        return self.stage, self.delay, tuple(sorted(self.arrays)), tuple(sorted(self.text.items()))

    @property
    def delay(self) -> int:
        """Actions of the previous chunk that will be executed meanwhile; `NO_PREFIX` without one."""
        return int(self.arrays[DELAY][0, 0]) if DELAY in self.arrays else NO_PREFIX

    def with_noise(self, noise: np.ndarray) -> Request:
        """The same with this noise."""
        return replace(self, arrays={**self.arrays, NOISE: noise})


class Contract:
    """Reads messages for one policy.

    Args:
        manifest: of the policy.
        renamed: a client's key to the policy's.
        ignored: keys of a client that mean nothing here.
        text: names of text inputs, where the policy has some.

    Raises:
        ConfigError: `renamed` leads to an input that the policy does not have.
    """

    def __init__(
        self,
        manifest: Manifest,
        renamed: Mapping[str, str] | None = None,
        ignored: Sequence[str] = (),
        text: Sequence[str] = (),
    ) -> None:
        self.manifest, self.ignored, self.text = manifest, frozenset(ignored), tuple(text)
        self.shapes = {POLICY: manifest.input_shapes(), RESIDUAL: manifest.residual_shapes()}
        self.renamed = {key: self._target(key, name) for key, name in (renamed or {}).items()}

    def read(self, message: Mapping[str, Any]) -> Request:
        """What a client asks for.

        Raises:
            SpecError: a key is missing, unknown or given twice, a value has another shape or type, or text came to a
                policy that reads none.
        """
        stage = message.get(STAGE, POLICY)
        if not isinstance(stage, str) or not self.shapes.get(stage):
            raise SpecError(f"this policy has the stages {[s for s in self.shapes if self.shapes[s]]}, got {stage!r}")
        echo = {key: _whole(key, message[key]) for key in (REQUEST, STAMP) if key in message}
        given = self._named(message, self.shapes[stage])
        text = {name: _line(name, given.pop(name)) for name in self.text if name in given}
        if missing := [name for name in self.text if name not in text]:
            raise SpecError(f"the policy reads the text '{missing[0]}', which the message lacks")
        rows, single, arrays = self._rows(given, self.shapes[stage])
        if DELAY in arrays and not _one_count(arrays[DELAY]):
            raise SpecError("'delay' must be one whole number, the same for every row of a message")
        return Request(stage, rows, single, {**self._defaults(stage, rows), **arrays}, text, echo)

    def describe(self) -> dict[str, Any]:
        """The inputs by a client's key, for the server's first message."""
        back = {name: key for key, name in self.renamed.items()}
        defaults = {NOISE, *self._defaults(POLICY, 1)}
        inputs = {
            back.get(name, name): {"dtype": input_dtype(name), "shape": list(shape), "optional": name in defaults}
            for name, shape in self.shapes[POLICY].items()
        }
        return inputs | {back.get(n, n): {"dtype": "text", "shape": [], "optional": False} for n in self.text}

    def _defaults(self, stage: str, rows: int) -> dict[str, np.ndarray]:
        """Inputs a client may leave out: the bundle's own guidance, and no prefix."""
        shapes, own = self.shapes[stage], self.manifest.stage.guidance
        values = {GUIDANCE: own, PREFIX: 0.0, DELAY: NO_PREFIX}
        return {
            name: np.full((rows, *shapes[name]), value, np.float32)
            for name, value in values.items()
            if name in shapes and value is not None
        }

    def _target(self, key: str, name: str) -> str:
        known = {*self.shapes[POLICY], *self.text}
        for full in (name, OBSERVATION_PREFIX + name):
            if full in known:
                return full
        raise ConfigError(f"--map {key}={name}: {unknown_name('input of the policy', name, self._short(known))}")

    def _named(self, message: Mapping[str, Any], shapes: Mapping[str, object]) -> dict[str, Any]:
        """The message's values by the model's own names."""
        given: dict[str, Any] = {}
        for key, value in _flat(message):
            if key in self.ignored or key in (REQUEST, STAMP, STAGE):
                continue
            if len(key) > MAX_KEY:
                raise SpecError(f"a key of {len(key)} characters is none of the policy's: '{key[:MAX_KEY]}...'")
            name = self._name(key, value, shapes)
            if name in given:
                raise SpecError(f"'{key}' gives the input '{name}' a second time: send it once")
            given[name] = value
        return given

    def _name(self, key: str, value: object, shapes: Mapping[str, object]) -> str:
        known = {*shapes, *self.text}
        for name in (self.renamed.get(key), key, OBSERVATION_PREFIX + key):
            if name in known:
                return str(name)
        if isinstance(value, str):
            raise SpecError(
                f"this policy reads no text, got '{key}': leave it out, or start the server with --ignore {key}"
            )
        raise SpecError(
            f"{unknown_name('input', key, self._short(known))}; a client with names of its own needs the server's "
            f"--map {key}=NAME, and --ignore {key} leaves a value out"
        )

    def _rows(
        self, given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
    ) -> tuple[int, bool, dict[str, np.ndarray]]:
        """How many rows the message has, whether it is a single one, and its arrays with rows first."""
        needed = [n for n in shapes if n not in (NOISE, GUIDANCE, PREFIX, DELAY)]
        if missing := [name for name in needed if name not in given]:
            raise SpecError(f"the policy reads {self._short(needed)}, the message lacks {self._short(missing)}")
        arrays = {name: _numbers(name, value) for name, value in given.items()}
        single = all(arrays[name].ndim <= len(shapes[name]) for name in needed)
        rows = 1 if single else max(len(arrays[n]) for n in needed if arrays[n].ndim > len(shapes[n]))
        if rows < 1:
            raise SpecError("a message must speak of at least one row, got arrays of none")
        return rows, single, {name: _rows_first(name, array, rows, shapes[name]) for name, array in arrays.items()}

    @staticmethod
    def _short(names: Sequence[str] | set[str]) -> list[str]:
        return sorted(name.removeprefix(OBSERVATION_PREFIX) for name in names)


def _flat(message: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Entries of nested maps as `outer/inner`."""
    for key, value in message.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _rows_first(name: str, array: np.ndarray, rows: int, shape: tuple[int, ...]) -> np.ndarray:
    """The values as [rows, *shape].

    A row alone may leave out its axis of rows and an axis of one time step; a number stands for every row.
    """
    wanted = (rows, *shape)
    if array.shape == wanted:
        return array
    if rows == 1 and array.shape in (shape, shape[1:] if shape[0] == 1 else shape):
        return array.reshape(wanted)
    if array.ndim == 0 and shape == (1,):
        return np.full(wanted, array)
    hint = "; images are height, width, colour" if input_dtype(name) == "uint8" else ""
    raise SpecError(f"'{name}' must have shape {list(shape)} or [rows, ...], got {list(array.shape)}{hint}")


def _numbers(name: str, value: object) -> np.ndarray:
    """Pixels as they are, everything else as float32."""
    if not isinstance(value, np.ndarray | np.generic | list | int | float):
        raise SpecError(f"'{name}' must be an array, got {type(value).__name__}")
    try:
        array = np.asarray(value)
        if input_dtype(name) == "uint8" and array.dtype == np.uint8:
            return array
        with np.errstate(over="ignore"):
            changed = np.asarray(array, np.float32)
    except (TypeError, ValueError) as error:
        raise SpecError(f"'{name}' must hold numbers: {error}") from error
    if input_dtype(name) == "uint8":
        raise SpecError(f"'{name}' must be uint8 (0 .. 255), got {array.dtype}")
    return changed


def _whole(key: str, value: object) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise SpecError(f"'{key}' must be a whole number, got {type(value).__name__}")
    return int(value)


def _line(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise SpecError(f"'{name}' must be text, got {type(value).__name__}")
    return value


def _one_count(values: np.ndarray) -> bool:
    first = values.flat[0]
    return bool(np.isfinite(first) and first == np.rint(first) and (values == first).all())
