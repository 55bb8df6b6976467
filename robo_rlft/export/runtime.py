"""A controller bundle, loaded, verified and callable. Imports numpy, PyYAML and ONNX Runtime only: no torch.

>>> controller = Controller("runs/demo/bundle")  # doctest: +SKIP
>>> chunk = controller.act({"policy": observation}, noise)  # doctest: +SKIP
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime

from robo_rlft.errors import BundleError, SpecError
from robo_rlft.export.manifest import (
    GOLDEN_FILE,
    GUIDANCE,
    MODEL_FILE,
    OBSERVATION_PREFIX,
    Manifest,
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
        files = {name: _verified(path, name, self.manifest) for name in (MODEL_FILE, GOLDEN_FILE)}
        self._shapes, self._dtypes = self.manifest.input_shapes(), self.manifest.input_dtypes()
        self._session = _session(path / MODEL_FILE, files[MODEL_FILE], threads)
        _check_signature(path / MODEL_FILE, self._session, self._shapes)
        self.golden = load_golden(path / GOLDEN_FILE, files[GOLDEN_FILE], self.manifest)
        self.golden_error = self._check_golden(path)

    def act(
        self, observation: Mapping[str, np.ndarray], noise: np.ndarray, guidance: float | None = None
    ) -> np.ndarray:
        """The chunk of actions to execute next.

        Args:
            observation: per key float32 [N, obs_horizon, width] in the robot's units, or for an image uint8
                [N, obs_horizon, height, width, 3]; the present one last.
            noise: x_0, float32 [N, H, A]; standard normal, or zeros for the most likely start.
            guidance: w of RLG, for bundles that have it; None takes the bundle's own.

        Returns:
            float32 [N, H, A] in the robot's units, within the robot's limits.

        Raises:
            SpecError: a key or shape is wrong, a value is not finite, an image is not uint8, or the bundle has no
                guidance to set.
            BundleError: the model returned a value that is not finite.
        """
        feed = self._feed(observation, noise, guidance)
        action = self._infer(feed)
        if not np.isfinite(action).all():
            raise BundleError("the policy returned an action that is not finite: do not run this bundle, train it anew")
        return action

    def _infer(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        return cast(np.ndarray, self._session.run(["action"], feed)[0])

    def _feed(
        self, observation: Mapping[str, np.ndarray], noise: np.ndarray, guidance: float | None
    ) -> dict[str, np.ndarray]:
        keys, own = self.manifest.stage.observation, self.manifest.stage.guidance
        if guidance is not None and own is None:
            raise SpecError("this bundle has no guidance: export it with export.guidance=1")
        if set(observation) != set(keys):
            raise SpecError(f"the controller reads observations {sorted(keys)}, got {sorted(observation)}")
        given = {OBSERVATION_PREFIX + key: observation[key] for key in keys} | {"noise": noise}
        rows = len(noise) if np.ndim(noise) else 0
        if own is not None:
            given[GUIDANCE] = np.full((rows, 1), own if guidance is None else guidance, np.float32)
        return {name: self._checked(name, value, rows) for name, value in given.items()}

    def _checked(self, name: str, value: np.ndarray, rows: int) -> np.ndarray:
        shape = (max(rows, 1), *self._shapes[name])
        if np.shape(value) != shape:
            raise SpecError(
                f"'{name}' must have shape {list(shape)} (rows, then {list(shape[1:])}), got {list(np.shape(value))}"
            )
        if self._dtypes[name] == "uint8":
            return as_image(name, value)
        array = as_float32(name, value)
        if not np.isfinite(array).all():
            raise SpecError(self._not_finite(name, array))
        return array

    def _not_finite(self, name: str, array: np.ndarray) -> str:
        where = np.argwhere(~np.isfinite(array))[0]
        if name == GUIDANCE:
            return f"guidance is {array[tuple(where)]}; the controller acts on finite numbers only"
        key = name.removeprefix(OBSERVATION_PREFIX)
        spec = self.manifest.robot.action if name == "noise" else self.manifest.robot.observation[key]
        entry = _entry_name(spec, int(where[-1]))
        return f"'{name}' row {where[0]}: {entry} is {array[tuple(where)]}; the controller acts on finite numbers only"

    def _check_golden(self, path: Path) -> float:
        action = self._infer({name: self.golden[name] for name in self._shapes})
        error = golden_error(action, self.golden["action"], self.manifest)
        if not error <= self.manifest.tolerance:
            raise BundleError(
                f"bundle {path} does not reproduce its golden actions on this machine: the error is {error:.2g}, "
                f"allowed is {self.manifest.tolerance:g}; export it again and compare the versions of ONNX Runtime"
            )
        return error


def golden_error(action: np.ndarray, golden: np.ndarray, manifest: Manifest) -> float:
    """Largest difference between actions [N, H, A] in units of max(1, action scale); NaN if any entry is NaN."""
    if action.shape != golden.shape:
        return float("inf")
    difference = np.abs(action.astype(np.float64) - golden) / np.asarray(manifest.action_scale())
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


def as_image(name: str, value: np.ndarray) -> np.ndarray:
    """Contiguous uint8 pixels.

    Raises:
        SpecError: they are something else: a scaled image would be misread without a word.
    """
    if np.asarray(value).dtype != np.uint8:
        raise SpecError(f"'{name}' must be uint8 (0 .. 255), got {np.asarray(value).dtype}")
    return np.ascontiguousarray(value)


def load_golden(path: Path, data: bytes, manifest: Manifest) -> dict[str, np.ndarray]:
    """Golden inputs and outputs by name, rows first.

    Raises:
        BundleError: the file is damaged or does not fit the manifest.
    """
    shapes, dtypes = {**manifest.input_shapes(), "action": manifest.event}, manifest.input_dtypes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            golden = {name: file[name] for name in shapes}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} is damaged ({error}): export the bundle again") from error
    rows = len(golden["action"])
    for name, shape in shapes.items():
        found, wanted = golden[name], dtypes.get(name, "float32")
        if found.shape != (rows, *shape) or found.dtype != wanted or rows == 0:
            raise BundleError(
                f"{path}: '{name}' is {found.dtype} {list(found.shape)}, expected {wanted} [rows, "
                f"{', '.join(map(str, shape))}]: export the bundle again"
            )
    return golden


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
