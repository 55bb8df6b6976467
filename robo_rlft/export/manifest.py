"""`controller.yaml`: what a bundle says about itself, in words a robot engineer and a program can both read.

    BUNDLE/
      controller.yaml   robot, stages, rates, timing, normalisation, provenance, hashes of the other files
      runtime.json      the same facts for programs without a YAML parser (`facts`)
      policy.onnx       observations (images as bytes) and noise in, a chunk of actions out, both in the robot's units
      residual.onnx     with a residual policy only: the next action of the chunk in, its corrected action out
      weights.safetensors  plain networks only: the same policy for runtimes of their own (`weights`)
      golden.npz        inputs and outputs every runtime compares before it moves anything
      README.md         the model card

The file's last line, `digest`, is the SHA-256 of every byte before that line, so that a hand-edited limit or joint
order is noticed. It protects against mistakes, not against somebody who computes it anew. Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from robo_rlft.errors import BundleError, SpecError
from robo_rlft.export.timing import Timing
from robo_rlft.spec import IMAGE_PREFIX, RobotSpec

FORMAT = "robo_rlft.controller"
VERSION = 2
"""Layout of a bundle. Another one is refused: a controller must not guess."""
MANIFEST_FILE, MODEL_FILE, GOLDEN_FILE = "controller.yaml", "policy.onnx", "golden.npz"
RESIDUAL_FILE, WEIGHTS_FILE = "residual.onnx", "weights.safetensors"
RUNTIME_FILE, CARD_FILE = "runtime.json", "README.md"
OBSERVATION_PREFIX = "observation/"
"""Model inputs and golden arrays are called `observation/<key>`."""
ROBOT_UNITS, NORMALISED = "robot", "normalised"
"""Units of a stage's actions."""
GUIDANCE = "guidance"
"""Model input of bundles with guidance."""
PREFIX, DELAY = "prefix", "delay"
"""Model inputs of bundles with real-time chunking."""
NO_PREFIX = -1
"""Delay that says that there is no previous chunk."""
RTC = ("none", "prefix", "guided")
"""How a chunk continues the one before it (`chunking`)."""
RESIDUAL = "residual"
"""Name of the second stage, and prefix of its golden arrays."""
BASE_ACTION, PHASE = "base_action", "phase"
"""Inputs of a residual's model beside the observations."""
TOLERANCE = 1e-5
"""Largest difference from the golden actions, in units of max(1, scale of the action's normaliser)."""
IMAGE_TOLERANCE = 1e-4
"""The same where the policy reads images: the rounding of deep convolutions alone reaches 1e-5."""


@dataclass(frozen=True)
class Normaliser:
    """x -> (x - offset) / scale per entry, then a clip to +- `clip` (0: none); told to readers, done by the model."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    clip: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One model that is called at a fixed rate.

    Attributes:
        name: `policy`.
        file: ONNX file in the bundle.
        rate_hz: calls per second: the robot's rate over `execute`.
        observation: keys it reads, each float32 [N, obs_horizon, width] in the robot's units; `image/<camera>` is uint8
            [N, obs_horizon, height, width, 3], rows from the top down, red first.
        obs_horizon: observations of consecutive control steps, the present one last.
        chunk: H, actions it returns, float32 [N, H, A] in the robot's units.
        execute: actions that are executed before the next call.
        chain: how noise becomes an action: the name of a chain, which is followed deterministically (the flow's
            ODE, DDPM's means, DDIM with eta 0, a Gaussian's mean).
        steps: K, denoising steps unrolled in the model.
        noise: distribution of the input `noise` [N, H, A]: `standard_normal`, or `unused` (any value does).
        guidance: w of RLG where a caller gives none; the model then has an input `guidance` [N, 1]. None without it.
        units: of the returned actions: `robot`, or `normalised` where a residual stage makes them the robot's.
        rtc: real-time chunking, one of `RTC`.
        prefix: P, actions of the previous chunk it takes as `prefix` [N, P, A], with `delay` [N, 1]; 0 without them.
    """

    name: str
    file: str
    rate_hz: float
    observation: tuple[str, ...]
    obs_horizon: int
    chunk: int
    execute: int
    chain: str
    steps: int
    noise: str
    guidance: float | None = None
    units: str = ROBOT_UNITS
    rtc: str = RTC[0]
    prefix: int = 0


@dataclass(frozen=True)
class ResidualStage:
    """The model that corrects a chunk's actions, called once per control step between two calls of the policy.

    Attributes:
        file: ONNX file in the bundle.
        rate_hz: calls per second: the robot's rate.
        observation: keys it reads, each float32 [N, width], the newest observation in the robot's units.
        scale: size of its largest correction, in normalised action units; informative.
    """

    file: str
    rate_hz: float
    observation: tuple[str, ...]
    scale: float


@dataclass(frozen=True)
class Manifest:
    """Everything in `controller.yaml`.

    Attributes:
        robot: observation layout, action names, limits, rate.
        stage: the policy, which gives chunks.
        normalisation: by observation key and for `action`; images have none.
        source: where the policy came from: run, checkpoint, training, versions. Informative.
        files: SHA-256 of every other file by name.
        timing: budget and timeouts.
        tolerance: largest accepted difference from the golden actions.
        residual: the model that corrects the chunks' actions, if there is one.
        native: the network behind `weights.safetensors` (`weights`), if it is a plain one.
    """

    robot: RobotSpec
    stage: Stage
    normalisation: Mapping[str, Normaliser]
    source: Mapping[str, Any]
    files: Mapping[str, str]
    timing: Timing
    tolerance: float = TOLERANCE
    residual: ResidualStage | None = None
    native: Mapping[str, Any] | None = None

    @property
    def event(self) -> tuple[int, int]:
        """(chunk length H, action width A)."""
        return self.stage.chunk, self.robot.action.shape[0]

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Model inputs without their batch axis."""
        observed = {
            f"{OBSERVATION_PREFIX}{key}": (self.stage.obs_horizon, *self.robot.observation[key].shape)
            for key in self.stage.observation
        }
        weight = {} if self.stage.guidance is None else {GUIDANCE: (1,)}
        prefix, width = self.stage.prefix, self.event[1]
        committed = {PREFIX: (prefix, width), DELAY: (1,)} if prefix else {}
        return {**observed, "noise": self.event, **weight, **committed}

    def residual_shapes(self) -> dict[str, tuple[int, ...]]:
        """Inputs of the residual's model without their batch axis; none without a residual."""
        if self.residual is None:
            return {}
        seen = {f"{OBSERVATION_PREFIX}{key}": self.robot.observation[key].shape for key in self.residual.observation}
        return {**seen, BASE_ACTION: self.event[1:], PHASE: (1,)}

    @property
    def images(self) -> tuple[str, ...]:
        """Observation keys that are images."""
        return tuple(key for key in self.stage.observation if key.startswith(IMAGE_PREFIX))

    def action_scale(self, units: str = ROBOT_UNITS) -> tuple[float, ...]:
        """What differences of actions are measured in, one figure per entry: at least 1."""
        scale = self.normalisation["action"].scale
        return tuple(max(1.0, s) if units == ROBOT_UNITS else 1.0 for s in scale)


def to_yaml(manifest: Manifest) -> bytes:
    """The text of `controller.yaml`, its digest included."""
    # Unescaped, some characters (U+0085) would be read back as spaces: everything beyond ASCII is escaped.
    text = _HEADER + yaml.dump(
        _to_dict(manifest), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=116, allow_unicode=False
    )
    return text.encode() + _digest_line(text.encode())


def read_manifest(bundle: Path | str) -> Manifest:
    """Read and check a bundle's `controller.yaml`.

    Raises:
        BundleError: the folder is no bundle, or its manifest is damaged, altered or of another format.
    """
    path = Path(bundle) / MANIFEST_FILE
    if not path.is_file():
        raise BundleError(
            f"{bundle} is no controller bundle: it has no {MANIFEST_FILE}; make one with robo-rlft export RUN"
        )
    raw = path.read_bytes()
    data = _parse(path, raw)
    _check_format(path, data)
    _check_digest(path, raw)
    try:
        return _from_dict(data)
    except (KeyError, TypeError, ValueError, AttributeError, SpecError) as error:
        raise BundleError(
            f"{path} lacks or misstates {error}: export the bundle again with robo-rlft export RUN"
        ) from error


def input_dtype(name: str) -> str:
    """numpy name of a model input's type: `uint8` for images, else `float32`."""
    return "uint8" if name.startswith(OBSERVATION_PREFIX + IMAGE_PREFIX) else "float32"


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


_HEADER = """\
# Controller of a learned policy. Units and names are the robot's own; the model normalises by itself.
# Every file beside this one is listed under `files` with its SHA-256; the last line is that of this file's other lines.
"""
_DIGEST = b"digest: "


class _Dumper(yaml.SafeDumper):
    """Plain YAML without anchors: a reader should not have to look elsewhere for a value."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _digest_line(above: bytes) -> bytes:
    return _DIGEST + sha256(above).encode() + b"\n"


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        data = yaml.safe_load(raw)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is damaged (not readable as YAML): export the bundle again") from error
    if not isinstance(data, dict):
        raise BundleError(f"{path} is damaged (it holds {type(data).__name__}, not settings): export the bundle again")
    return data


def _check_format(path: Path, data: Mapping[str, Any]) -> None:
    if data.get("format") != FORMAT:
        raise BundleError(
            f"{path} has format {data.get('format')!r}, expected '{FORMAT}': it is not one of our bundles"
        )
    if data.get("version") != VERSION:
        raise BundleError(
            f"{path} has format version {data.get('version')!r}, this runtime reads {VERSION}: export the run again "
            "with the robo-rlft that will run it"
        )


def _check_digest(path: Path, raw: bytes) -> None:
    start = raw.rfind(b"\n" + _DIGEST) + 1
    if raw[start:] != _digest_line(raw[:start]):
        raise BundleError(
            f"{path} was altered after the export (its digest does not match): export the bundle again, "
            "and change settings in the run instead"
        )


def _to_dict(manifest: Manifest) -> dict[str, Any]:
    stages = [_stage_dict(manifest.stage, manifest.input_shapes(), manifest.event)]
    if manifest.residual is not None:
        own = _stage_dict(manifest.residual, manifest.residual_shapes(), manifest.event[1:])
        stages.append({"name": RESIDUAL, **own})
    return {
        "format": FORMAT,
        "version": VERSION,
        "robot": manifest.robot.to_dict(),
        "stages": stages,
        "normalisation": {
            key: {"offset": list(n.offset), "scale": list(n.scale), "clip": n.clip}
            for key, n in manifest.normalisation.items()
        },
        "timing": vars(manifest.timing),
        "native": None if manifest.native is None else dict(manifest.native),
        "golden": {"file": GOLDEN_FILE, "tolerance": manifest.tolerance},
        "source": dict(manifest.source),
        "files": dict(manifest.files),
    }


def _stage_dict(
    stage: Stage | ResidualStage, inputs: Mapping[str, tuple[int, ...]], output: tuple[int, ...]
) -> dict[str, Any]:
    return {
        **vars(stage),
        "observation": list(stage.observation),
        "inputs": {k: {"dtype": input_dtype(k), "shape": ["N", *v]} for k, v in inputs.items()},
        "outputs": {"action": {"dtype": "float32", "shape": ["N", *output]}},
    }


def _from_dict(data: Mapping[str, Any]) -> Manifest:
    names = [s["name"] for s in data["stages"]]
    if names not in (["policy"], ["policy", RESIDUAL]):
        raise ValueError(f"stages {names} (expected one stage 'policy', then perhaps '{RESIDUAL}')")
    policy, *others = (_stage_fields(stage) for stage in data["stages"])
    return Manifest(
        robot=RobotSpec.from_dict(data["robot"]),
        stage=Stage(**policy),
        normalisation={
            key: Normaliser(tuple(n["offset"]), tuple(n["scale"]), float(n["clip"]))
            for key, n in data["normalisation"].items()
        },
        source=data["source"],
        files={str(k): str(v) for k, v in data["files"].items()},
        timing=Timing(**data["timing"]),
        tolerance=float(data["golden"]["tolerance"]),
        residual=ResidualStage(**{k: v for k, v in others[0].items() if k != "name"}) if others else None,
        native=data["native"],
    )


def _stage_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    entry = {k: v for k, v in data.items() if k not in ("inputs", "outputs")}
    return {**entry, "observation": tuple(entry["observation"])}
