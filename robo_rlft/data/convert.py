"""Bring foreign demonstrations into the store, with a report of everything that had to be assumed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Self

import cv2
import numpy as np
from jaxtyping import Shaped

from robo_rlft.data.converters import diffusion_policy, lerobot, rosbag
from robo_rlft.data.converters.foreign import Foreign, Recorded
from robo_rlft.data.episode import Episode
from robo_rlft.data.layout import HEADER_FILE
from robo_rlft.data.store import DatasetWriter
from robo_rlft.errors import ConfigError, DataError, unknown_name
from robo_rlft.spec import IMAGE_PREFIX, POLICY_KEY, ArraySpec, RobotSpec

FORMATS: Mapping[str, ModuleType] = {module.NAME: module for module in (diffusion_policy, lerobot, rosbag)}
ASSUMED_RATE_HZ = 10.0
"""Taken where a format stores no rate and none is given: that of the Push-T recordings."""


@dataclass(frozen=True)
class Options:
    """How to read what a foreign format leaves open.

    Attributes:
        rate_hz: control steps per second; by default the source's own, else 10 Hz is assumed.
        policy_keys: low-dimensional source keys that are joined, in this order, into the observation `policy`; by
            default all, sorted by name.
        image_keys: source keys of cameras to keep; by default all.
        image_size: (height, width) to resize images to; by default they stay as they are.
        last_observation: a source has T observations for T actions: `repeat` the last one, or `drop` the last action.
        success: recorded for episodes whose source does not say.
        env_id: name of the task in the spec.
        action_key: of a rosbag, the topic of the actions; by default one that is named like commands.
        overwrite: replace a data set at the target.
    """

    rate_hz: float | None = None
    policy_keys: Sequence[str] | None = None
    image_keys: Sequence[str] | None = None
    image_size: tuple[int, int] | None = None
    last_observation: Literal["repeat", "drop"] = "repeat"
    success: bool = True
    env_id: str = "recorded"
    action_key: str | None = None
    overwrite: bool = False

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """Options from keywords.

        Raises:
            ConfigError: an unknown name or an impossible value.
        """
        names = [f.name for f in fields(cls)]
        for name in values:
            if name not in names:
                raise ConfigError(unknown_name("conversion option", name, names))
        options = cls(**values)
        if options.last_observation not in ("repeat", "drop"):
            raise ConfigError(f"last_observation is '{options.last_observation}'; give repeat or drop")
        if options.rate_hz is not None and options.rate_hz <= 0:
            raise ConfigError(f"rate_hz is {options.rate_hz}; give control steps per second, above 0")
        return options


@dataclass(frozen=True)
class ConversionReport:
    """What was converted and what had to be assumed.

    Attributes:
        source, target: folders.
        format: of the source.
        num_episodes, num_steps: what was written.
        rate_hz: control steps per second.
        keys: observation keys and the source keys they were made from.
        assumptions: one sentence each.
    """

    source: Path
    target: Path
    format: str
    num_episodes: int
    num_steps: int
    rate_hz: float
    keys: Mapping[str, Sequence[str]]
    assumptions: Sequence[str] = field(default=())

    def __str__(self) -> str:
        summary = f"{self.num_episodes} episodes, {self.num_steps} steps at {self.rate_hz:g} Hz from {self.format}"
        keys = [f"  {key} <- {', '.join(sources)}" for key, sources in self.keys.items()]
        return "\n".join([f"{self.target}: {summary}", *keys, *(f"  assumed: {text}" for text in self.assumptions)])


def convert(source: str | Path, target: str | Path, format: str = "auto", **options: Any) -> ConversionReport:
    """Convert a foreign data set, one episode in memory at a time. The target appears when it is complete.

    Args:
        source: folder of the foreign data set (or a zip file of diffusion_policy).
        target: folder to write.
        format: `diffusion_policy`, `lerobot`, `rosbag`, or `auto` to recognise it.
        options: fields of `Options`.

    Raises:
        DataError: the source is unknown, damaged or not fit to learn from, or the target exists.
        ConfigError: an unknown format or option.
        MissingExtraError: the format needs a package that is not installed.
    """
    chosen = Options.checked(options)
    origin, goal = Path(source), Path(target)
    if (goal.exists() and any(goal.iterdir())) and not (chosen.overwrite and (goal / HEADER_FILE).exists()):
        raise DataError(f"{goal} exists: give another target, or overwrite=true to replace a data set")
    foreign = _opened(origin, format, chosen)
    plan = _Plan(foreign, chosen)
    provenance = {"converted_from": str(origin), "format": foreign.format, "options": asdict(chosen)}
    unfinished = goal.with_name(goal.name + ".converting")
    with DatasetWriter(unfinished, plan.robot, {**provenance, "assumptions": plan.notes}, overwrite=True) as writer:
        for recorded in foreign.episodes([*plan.numbers, *plan.images]):
            if len(recorded.action) > plan.dropped:
                writer.append(plan.episode(recorded))
    if goal.exists():
        shutil.rmtree(goal)
    os.replace(unfinished, goal)
    return ConversionReport(
        source=origin,
        target=goal,
        format=foreign.format,
        num_episodes=len(plan.lengths),
        num_steps=sum(plan.lengths),
        rate_hz=plan.robot.rate_hz,
        keys=plan.keys,
        assumptions=plan.notes,
    )


def _opened(path: Path, format: str, options: Options) -> Foreign:
    opener = _opener(path, format)
    if opener is rosbag:
        return rosbag.open_source(path, options.action_key)
    if options.action_key is not None:
        raise ConfigError(f"action_key is for rosbags; {path} is in the format {opener.NAME}, which names its actions")
    return opener.open_source(path)


def _opener(path: Path, format: str) -> ModuleType:
    if not path.exists():
        raise DataError(f"there is nothing at {path} to convert")
    if format in FORMATS:
        return FORMATS[format]
    if format != "auto":
        raise ConfigError(unknown_name("format", format, ["auto", *FORMATS]))
    for module in FORMATS.values():
        if module.matches(path):
            return module
    raise DataError(f"{path} is in none of the known formats ({', '.join(FORMATS)}): name it with format=")


class _Plan:
    """Which source keys become which observations, and how an episode is turned into ours."""

    def __init__(self, foreign: Foreign, options: Options) -> None:
        self._options = options
        self.numbers = _chosen("policy_keys", options.policy_keys, foreign.numbers)
        self.images = _chosen("image_keys", options.image_keys, foreign.images)
        self.dropped = int(options.last_observation == "drop")
        self.lengths = [length - self.dropped for length in foreign.lengths if length > self.dropped]
        self.robot = self._spec(foreign)
        self.keys = {k: v for k, v in {POLICY_KEY: self.numbers}.items() if v}
        self.keys |= {_camera(key): [key] for key in self.images}
        self.notes = [*foreign.notes, *self._assumptions(foreign)]

    def episode(self, recorded: Recorded) -> Episode:
        steps = len(recorded.action) - self.dropped
        success = self._options.success if recorded.success is None else recorded.success
        terminated = bool(recorded.success)
        observation = {_camera(key): self._resized(recorded.observation[key]) for key in self.images}
        if self.numbers:
            observation[POLICY_KEY] = np.concatenate([recorded.observation[key] for key in self.numbers], 1)
        reward = np.zeros(steps, np.float32) if recorded.reward is None else recorded.reward[:steps]
        return Episode(
            observation={key: self._with_last(rows) for key, rows in observation.items()},
            action=recorded.action[:steps],
            reward=reward,
            terminated=terminated,
            truncated=not terminated,
            success=success,
            task=recorded.task,
        )

    def _with_last(self, rows: Shaped[np.ndarray, "step ..."]) -> Shaped[np.ndarray, "step_and_last ..."]:
        return rows if self.dropped else np.concatenate([rows, rows[-1:]])

    def _resized(self, frames: Shaped[np.ndarray, "step height width 3"]) -> Shaped[np.ndarray, "step h w 3"]:
        size = self._options.image_size
        if size is None:
            return frames
        return np.stack([cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_AREA) for frame in frames])

    def _spec(self, foreign: Foreign) -> RobotSpec:
        size = self._options.image_size
        observation = {_camera(k): foreign.images[k] for k in self.images}
        if size is not None:
            observation = {key: ArraySpec((*size, 3), "uint8") for key in observation}
        if self.numbers:
            observation = {POLICY_KEY: _joined({k: foreign.numbers[k] for k in self.numbers}), **observation}
        if not observation:
            raise DataError("no observation is left: choose at least one of the source's keys")
        return RobotSpec(
            env_id=self._options.env_id,
            observation=observation,
            action=foreign.action,
            rate_hz=self._options.rate_hz or foreign.rate_hz or ASSUMED_RATE_HZ,
            max_episode_steps=max(self.lengths, default=0),
        )

    def _assumptions(self, foreign: Foreign) -> list[str]:
        options = self._options
        last = "the last action of each episode was dropped" if self.dropped else "the last observation was repeated"
        notes = [f"the source has as many observations as actions: {last}"]
        if lost := len(foreign.lengths) - len(self.lengths):
            notes.append(f"{lost} episodes of a single step had nothing left and were left out")
        if options.rate_hz is None and foreign.rate_hz is None:
            notes.append(f"the source stores no rate: {ASSUMED_RATE_HZ:g} Hz (give rate_hz to correct it)")
        if options.rate_hz and foreign.rate_hz and options.rate_hz != foreign.rate_hz:
            notes.append(f"the source says {foreign.rate_hz:g} Hz, {options.rate_hz:g} Hz was given and used")
        if options.image_size is not None and self.images:
            notes.append(f"images were resized to {options.image_size[0]} x {options.image_size[1]}")
        return [*notes, *_outcome_notes(foreign, options)]


def _outcome_notes(foreign: Foreign, options: Options) -> list[str]:
    notes = []
    if not foreign.has_reward:
        notes.append("the source stores no rewards: they are 0")
    if foreign.has_success:
        notes.append("episodes with success were marked as terminated, the others as truncated")
    else:
        verdict = "successful" if options.success else "failed"
        notes.append(f"the source does not say how episodes ended: all {verdict}, and truncated at the last step")
    return notes


def _joined(parts: Mapping[str, ArraySpec]) -> ArraySpec:
    names = [f"{key}/{name}" for key, spec in parts.items() for name in spec.names or range(spec.shape[0])]
    return ArraySpec((len(names),), names=tuple(names))


def _chosen(option: str, wanted: Sequence[str] | None, offered: Mapping[str, ArraySpec]) -> list[str]:
    for key in wanted or ():
        if key not in offered:
            raise ConfigError(f"{option}: {unknown_name('source key', key, offered)}")
    return list(offered) if wanted is None else list(wanted)


def _camera(key: str) -> str:
    name = key.removeprefix("observation.images.").removeprefix("observation.")
    return f"{IMAGE_PREFIX}{name.replace('/', '_')}"
