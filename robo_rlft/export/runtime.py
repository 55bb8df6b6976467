"""A controller bundle, loaded, verified and callable. Imports numpy, PyYAML and ONNX Runtime only: no torch.

>>> controller = Controller("runs/demo/bundle")  # doctest: +SKIP
>>> chunk = controller.act({"policy": observation}, noise)  # doctest: +SKIP
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime

from robo_rlft.errors import BundleError, SpecError
from robo_rlft.export.manifest import (
    BASE_ACTION,
    DELAY,
    GOLDEN_FILE,
    GUIDANCE,
    MODEL_FILE,
    NO_PREFIX,
    OBSERVATION_PREFIX,
    PHASE,
    PREFIX,
    RESIDUAL,
    ROBOT_UNITS,
    Manifest,
    input_dtype,
    read_manifest,
    sha256,
)
from robo_rlft.spec import ArraySpec


class Controller:
    """A verified policy: observations and noise in, a chunk of actions out, all in the robot's units.

    Loading reads every file once, compares its hash, and runs the golden inputs; a controller that exists has
    reproduced them.

    Args:
        bundle: the bundle's folder.
        threads: threads of one inference. One is best for the small networks of a robot's policy.

    Attributes:
        manifest: what the bundle says about itself.
        golden_error: largest difference from the golden actions, in units of max(1, action scale).

    Raises:
        BundleError: a file is missing, altered or damaged, the format is another one, or the golden actions are not
            reproduced.
    """

    def __init__(self, bundle: Path | str, threads: int = 1) -> None:
        path = Path(bundle)
        self.manifest = read_manifest(path)
        manifest, golden_data = self.manifest, _verified(path, GOLDEN_FILE, self.manifest)
        for name in manifest.files:
            _verified(path, name, manifest)
        self._shapes, event = manifest.input_shapes(), manifest.event
        self._session = _loaded(path, MODEL_FILE, manifest, self._shapes, threads)
        self.golden = load_golden(path / GOLDEN_FILE, golden_data, self._shapes, event)
        self.golden_error = self._check_golden(path, self._session, self.golden, manifest.stage.units)
        self._tick_shapes = manifest.residual_shapes()
        if manifest.residual is not None:
            self._tick = _loaded(path, manifest.residual.file, manifest, self._tick_shapes, threads)
            pairs = load_golden(path / GOLDEN_FILE, golden_data, self._tick_shapes, event[1:], f"{RESIDUAL}/")
            self.golden_error = max(self.golden_error, self._check_golden(path, self._tick, pairs, ROBOT_UNITS))

    def act(
        self,
        observation: Mapping[str, np.ndarray],
        noise: np.ndarray,
        guidance: float | None = None,
        *,
        prefix: np.ndarray | None = None,
        delay: int = NO_PREFIX,
    ) -> np.ndarray:
        """The chunk of actions to execute next.

        Args:
            observation: per key float32 [N, obs_horizon, width] in the robot's units, or for an image uint8
                [N, obs_horizon, height, width, 3]; the present one last.
            noise: x_0, float32 [N, H, A]; standard normal, or zeros for the most likely start.
            guidance: w of RLG, for bundles that have it; None takes the bundle's own.
            prefix: with real-time chunking, the previous chunk's actions from the observation's step on, float32
                [N, P, A] in the robot's units; what the chunk does not have is 0.
            delay: how many of them will be executed before this chunk can be, 0 .. P; -1: there is no previous chunk.

        Returns:
            float32 [N, H, A] in the robot's units, within the robot's limits; where the bundle has a residual, in
            normalised units for `correct`.

        Raises:
            SpecError: a key or shape is wrong, a value is not finite, an image is not uint8, the delay is out of
                range, or the bundle has no guidance or no real-time chunking.
            BundleError: the model returned a value that is not finite.
        """
        feed = self._feed(observation, noise, guidance)
        return _finite(_infer(self._session, feed | self._continuation(len(feed["noise"]), prefix, delay)))

    def correct(self, observation: Mapping[str, np.ndarray], base_action: np.ndarray, phase: np.ndarray) -> np.ndarray:
        """The action of the next control step, of a bundle with a residual.

        Args:
            observation: per key float32 [N, width] in the robot's units, the newest one.
            base_action: the next action of the present chunk, as `act` gave it, float32 [N, A].
            phase: index of that action in its chunk over the stage's `execute`, float32 [N, 1].

        Returns:
            float32 [N, A] in the robot's units, within the robot's limits.

        Raises:
            SpecError: the bundle has no residual, a key or shape is wrong, or a value is not finite.
            BundleError: the model returned a value that is not finite.
        """
        if self.manifest.residual is None:
            raise SpecError("this bundle has no residual: execute the actions that `act` returns")
        self._check_keys(observation, self.manifest.residual.observation)
        given = {OBSERVATION_PREFIX + key: value for key, value in observation.items()}
        given |= {BASE_ACTION: base_action, PHASE: phase}
        rows = len(base_action) if np.ndim(base_action) else 0
        return _finite(_infer(self._tick, {n: self._checked(n, v, rows, self._tick_shapes) for n, v in given.items()}))

    def _feed(
        self, observation: Mapping[str, np.ndarray], noise: np.ndarray, guidance: float | None
    ) -> dict[str, np.ndarray]:
        keys, own = self.manifest.stage.observation, self.manifest.stage.guidance
        if guidance is not None and own is None:
            raise SpecError("this bundle has no guidance: export it with export.guidance=1")
        self._check_keys(observation, keys)
        given = {OBSERVATION_PREFIX + key: observation[key] for key in keys} | {"noise": noise}
        rows = len(noise) if np.ndim(noise) else 0
        if own is not None:
            given[GUIDANCE] = np.full((rows, 1), own if guidance is None else guidance, np.float32)
        return {name: self._checked(name, value, rows, self._shapes) for name, value in given.items()}

    def _continuation(self, rows: int, prefix: np.ndarray | None, delay: int) -> dict[str, np.ndarray]:
        """The previous chunk as model inputs."""
        length = self.manifest.stage.prefix
        if not length:
            if prefix is not None or delay != NO_PREFIX:
                raise SpecError("this bundle has no real-time chunking: export it with export.rtc=prefix or guided")
            return {}
        if not NO_PREFIX <= delay <= length or (prefix is None and delay > 0):
            raise SpecError(
                f"delay {delay} must be between {NO_PREFIX} and {length}, with a prefix where it is above 0"
            )
        known = np.zeros((rows, *self._shapes[PREFIX]), np.float32) if prefix is None else prefix
        whole = {PREFIX: known, DELAY: np.full((rows, 1), NO_PREFIX if prefix is None else delay, np.float32)}
        return {name: self._checked(name, value, rows, self._shapes) for name, value in whole.items()}

    def _check_keys(self, observation: Mapping[str, np.ndarray], keys: Sequence[str]) -> None:
        if set(observation) != set(keys):
            raise SpecError(f"the controller reads observations {sorted(keys)}, got {sorted(observation)}")

    def _checked(self, name: str, value: np.ndarray, rows: int, shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
        shape = (max(rows, 1), *shapes[name])
        if np.shape(value) != shape:
            raise SpecError(
                f"'{name}' must have shape {list(shape)} (rows, then {list(shape[1:])}), got {list(np.shape(value))}"
            )
        array = as_input(name, value)
        if not np.isfinite(array).all():
            raise SpecError(self._not_finite(name, array))
        return array

    def _not_finite(self, name: str, array: np.ndarray) -> str:
        where = np.argwhere(~np.isfinite(array))[0]
        if name in (GUIDANCE, PHASE, DELAY):
            return f"{name} is {array[tuple(where)]}; the controller acts on finite numbers only"
        robot = self.manifest.robot
        observed = robot.observation.get(name.removeprefix(OBSERVATION_PREFIX))
        spec = observed if observed is not None else robot.action
        entry = _entry_name(spec, int(where[-1]))
        return f"'{name}' row {where[0]}: {entry} is {array[tuple(where)]}; the controller acts on finite numbers only"

    def _check_golden(
        self, path: Path, session: onnxruntime.InferenceSession, golden: Mapping[str, np.ndarray], units: str
    ) -> float:
        action = _infer(session, {name: array for name, array in golden.items() if name != "action"})
        error = golden_error(action, golden["action"], self.manifest, units)
        if not error <= self.manifest.tolerance:
            raise BundleError(
                f"bundle {path} does not reproduce its golden actions on this machine: the error is {error:.2g}, "
                f"allowed is {self.manifest.tolerance:g}; export it again and compare the versions of ONNX Runtime"
            )
        return error


def golden_error(action: np.ndarray, golden: np.ndarray, manifest: Manifest, units: str = ROBOT_UNITS) -> float:
    """Largest difference between actions [..., A] in units of max(1, action scale); NaN if any entry is NaN."""
    if action.shape != golden.shape:
        return float("inf")
    difference = np.abs(action.astype(np.float64) - golden) / np.asarray(manifest.action_scale(units))
    return float(difference.max())


def as_float32(name: str, value: np.ndarray) -> np.ndarray:
    """A contiguous float32 array; numbers too large for it become infinite.

    Raises:
        SpecError: these are not numbers.
    """
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, np.float32, order="C")
    except (TypeError, ValueError) as error:
        raise SpecError(f"'{name}' must hold numbers, got {np.asarray(value).dtype}") from error


def as_input(name: str, value: np.ndarray) -> np.ndarray:
    """What a model takes under this name: pixels of images as they are, everything else as float32.

    Raises:
        SpecError: these are not numbers, or an image is something else than uint8.
    """
    return as_image(name, value) if input_dtype(name) == "uint8" else as_float32(name, value)


def as_image(name: str, value: np.ndarray) -> np.ndarray:
    """Contiguous uint8 pixels.

    Raises:
        SpecError: they are something else: a scaled image would be misread without a word.
    """
    if np.asarray(value).dtype != np.uint8:
        raise SpecError(f"'{name}' must be uint8 (0 .. 255), got {np.asarray(value).dtype}")
    return np.ascontiguousarray(value)


def load_golden(
    path: Path, data: bytes, shapes: Mapping[str, tuple[int, ...]], event: tuple[int, ...], prefix: str = ""
) -> dict[str, np.ndarray]:
    """Golden inputs and outputs of one stage by name, rows first; in the file their names begin with `prefix`.

    Raises:
        BundleError: the file is damaged or does not fit the manifest.
    """
    shapes = {**shapes, "action": event}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            golden = {name: file[prefix + name] for name in shapes}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} is damaged ({error}): export the bundle again") from error
    rows = len(golden["action"])
    for name, shape in shapes.items():
        found, wanted = golden[name], input_dtype(name)
        if found.shape != (rows, *shape) or found.dtype != wanted or rows == 0:
            raise BundleError(
                f"{path}: '{name}' is {found.dtype} {list(found.shape)}, expected {wanted} [rows, "
                f"{', '.join(map(str, shape))}]: export the bundle again"
            )
    return golden


def _infer(session: onnxruntime.InferenceSession, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    """The model's answer; an imported model may take one row at a time."""
    rows = len(next(iter(feed.values())))
    if rows == 1 or session.get_inputs()[0].shape[0] != 1:
        return cast(np.ndarray, session.run(["action"], dict(feed))[0])
    return np.concatenate([_infer(session, {k: v[i : i + 1] for k, v in feed.items()}) for i in range(rows)])


def _finite(action: np.ndarray) -> np.ndarray:
    if not np.isfinite(action).all():
        raise BundleError("the policy returned an action that is not finite: do not run this bundle, train it anew")
    return action


def _loaded(
    bundle: Path, name: str, manifest: Manifest, shapes: Mapping[str, tuple[int, ...]], threads: int
) -> onnxruntime.InferenceSession:
    """A stage's model, if it is the one the manifest speaks of."""
    session = _session(bundle / name, _verified(bundle, name, manifest), threads)
    _check_signature(bundle / name, session, shapes)
    return session


def _verified(bundle: Path, name: str, manifest: Manifest) -> bytes:
    path = bundle / name
    if name not in manifest.files or not path.is_file():
        raise BundleError(f"bundle {bundle} is incomplete, {name} is missing: copy or export it again")
    data = path.read_bytes()
    if sha256(data) != manifest.files[name]:
        raise BundleError(
            f"{path} was altered or damaged (its SHA-256 is not the one in controller.yaml): export it again"
        )
    return data


def _session(path: Path, model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes for a model it cannot load.
        raise BundleError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}") from error


def _check_signature(path: Path, session: onnxruntime.InferenceSession, shapes: Mapping[str, tuple[int, ...]]) -> None:
    offered = {i.name: tuple(i.shape[1:]) for i in session.get_inputs()}
    if offered != dict(shapes):
        raise BundleError(
            f"{path} takes inputs {offered}, controller.yaml says {dict(shapes)}: export the bundle again"
        )


def _entry_name(spec: ArraySpec, index: int) -> str:
    return f"entry '{spec.names[index]}'" if spec.names else f"entry {index}"
