"""Domain randomisation of physics and measurements: each episode's own masses, friction, gains, latency, pushes, noise.

Everything follows from the state of the environment's generator at the episode's start, and leaves that generator
alone: the same seed gives the same start with and without. A saved state holds that key and the commands under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import mujoco
import numpy as np
from jaxtyping import Float, Int, UInt64

from robo_rlft.envs.mujoco.simulation import Ids, Simulation
from robo_rlft.envs.mujoco.table import Groups
from robo_rlft.envs.mujoco.task import Observation
from robo_rlft.envs.randomise import PHYSICS, Draw, RandomiseConfig, draw, normal, uniform
from robo_rlft.spec import CRITIC_KEY

KEY, UNDER_WAY = "episode_draw", "commands_under_way"
"""What a saved state says: the key of its episode's draws, uint64 [row, 6]; last commands, [row, step, actuator]."""
Base = Callable[[str, Ids], np.ndarray]
"""(field, ids) -> rows of a model field before any draw"""
LEAST_FRICTION = 1e-3
"""Smallest coefficient of sliding friction: MuJoCo's pyramids break down without any."""
_SCALABLE_GAIN = (mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtGain.mjGAIN_AFFINE)
_SCALABLE_BIAS = (mujoco.mjtBias.mjBIAS_NONE, mujoco.mjtBias.mjBIAS_AFFINE)


def supported(model: mujoco.MjModel) -> tuple[str, ...]:
    """The fields of `PHYSICS` that a model can vary: pushes need a floating base, gains actuators that scale."""
    floats = model.njnt > 0 and model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    scales = (
        np.isin(model.actuator_gaintype, _SCALABLE_GAIN).all()
        and np.isin(model.actuator_biastype, _SCALABLE_BIAS).all()
    )
    unable = {*(() if floats else ("push_velocity",)), *(() if scales else ("gains",))}
    return tuple(name for name in PHYSICS if name not in unable)


class Randomised:
    """The draws of N environments' episodes, and their effects.

    Args:
        simulation: the physics.
        config: what varies.
        observations: of the task, for the units of what is measured.
        period_s: length of a control step.
        base: a model field before any draw.
    """

    def __init__(
        self,
        simulation: Simulation,
        config: RandomiseConfig,
        observations: Sequence[Observation],
        period_s: float,
        base: Base,
    ) -> None:
        self._simulation, self._config, self._base = simulation, config, base
        num, self._active = simulation.num, config.active
        self._keys = np.zeros((num, 6), np.uint64)
        self._salt = np.zeros(num, np.uint64)
        self._latency = np.array(config.latency_s) / period_s
        self._longest = round(self._latency[1])
        self._delay = np.zeros(num, np.int64)
        self._under_way = np.zeros((num, self._longest, simulation.model.nu))
        self._between = max(round(config.push_interval_s / period_s), 1)
        self._first = np.zeros(num, np.int64)
        self._std = {group: std for group, std in deviations(observations, config).items() if std.any()}

    @property
    def pushes(self) -> bool:
        """Episodes are interfered with between control steps."""
        return self._config.push_velocity > 0

    def begin(self, keys: UInt64[np.ndarray, "row 6"], ids: Ids) -> None:
        """Episodes of `ids` begin: draw what they vary."""
        self._keys[ids] = keys
        draws = [draw(key, self._config, self._simulation.model.nbody, self._simulation.model.nu) for key in keys]
        if not draws:
            return
        self._salt[ids] = [d.salt for d in draws]
        low, high = self._latency
        self._delay[ids] = np.round(low + (high - low) * np.array([d.latency for d in draws]))
        self._first[ids] = [int(d.first_push * self._between) for d in draws]
        if fields := self._fields(draws, ids):
            self._simulation.give(fields, ids, constants=True)

    def settle(self, ids: Ids) -> None:
        """The starts of `ids` are written: until the first command arrives, theirs holds."""
        self._under_way[ids] = self._simulation.field("ctrl")[ids][:, None]

    def late(self, control: Float[np.ndarray, "env actuator"], ids: Ids | None) -> Float[np.ndarray, "env actuator"]:
        """The commands that reach the actuators in a control step that commands `control`."""
        if not self._longest:
            return control
        line = np.concatenate((self._under_way, control[:, None]), axis=1)
        if ids is None:
            self._under_way = line[:, 1:]
        else:
            self._under_way[ids] = line[ids, 1:]
        return line[np.arange(len(line)), self._longest - self._delay]

    def late_chunk(self, control: Float[np.ndarray, "env chunk actuator"]) -> Float[np.ndarray, "env chunk actuator"]:
        """`late` for a chunk of steps; `take` must follow when they have been made."""
        if not self._longest:
            return control
        line = np.concatenate((self._under_way, control), axis=1)
        at = np.arange(control.shape[1]) + (self._longest - self._delay)[:, None]
        return line[np.arange(len(line))[:, None], at]

    def take(self, control: Float[np.ndarray, "env chunk actuator"], length: Int[np.ndarray, " env"]) -> None:
        """The first `length` steps of a chunk have been made."""
        if self._longest:
            line = np.concatenate((self._under_way, control), axis=1)
            self._under_way = line[np.arange(len(line))[:, None], length[:, None] + np.arange(self._longest)]

    def push(self, elapsed: Int[np.ndarray, " env"], ids: Ids | None) -> None:
        """Push those whose time has come, before a control step."""
        if not self.pushes:
            return
        count = elapsed + self._first
        due = (elapsed > 0) & (count % self._between == 0)
        rows = np.flatnonzero(due) if ids is None else ids[due[ids]]
        if len(rows):
            kick = self._config.push_velocity * uniform(self._salt[rows], count[rows] // self._between, 2)
            self._simulation.field("qvel")[rows, :2] += kick

    def measure(self, groups: Groups, elapsed: Int[np.ndarray, " row"], env: Int[np.ndarray, " row"]) -> None:
        """Add the noise of the measurements after `elapsed` control steps in place; rows are of environments `env`."""
        for number, (group, std) in enumerate(self._std.items()):
            noise = normal(self._salt[env] ^ np.uint64(number), elapsed, len(std))
            groups[group] += (std * noise).astype(groups[group].dtype)

    def save(self, ids: Ids) -> dict[str, np.ndarray]:
        """What `load` needs, one row each."""
        late = {UNDER_WAY: self._under_way[ids]} if self._longest else {}
        return {KEY: self._keys[ids], **late}

    def load(self, rows: Mapping[str, np.ndarray], ids: Ids) -> None:
        """Put saved rows into environments `ids`."""
        self.begin(rows[KEY], ids)
        if self._longest:
            self._under_way[ids] = rows[UNDER_WAY]

    def _fields(self, draws: list[Draw], ids: Ids) -> dict[str, np.ndarray]:
        """Rows of the model fields that vary."""
        factors: dict[str, np.ndarray] = {}
        if "mass" in self._active:
            mass = np.array([d.mass for d in draws])
            factors |= {"body_mass": mass, "body_inertia": mass[:, :, None]}
        if "friction" in self._active:
            friction = np.array([d.friction for d in draws])[:, None, None]
            factors |= {"geom_friction": friction}
            factors |= {"pair_friction": friction} if self._simulation.model.npair else {}
        if "gains" in self._active:
            gains = np.array([d.gains for d in draws])[:, :, None]
            factors |= {"actuator_gainprm": gains, "actuator_biasprm": gains}
        fields = {name: self._base(name, ids) * factor for name, factor in factors.items()}
        for name in ("geom_friction", "pair_friction"):
            if name in fields:
                sliding = fields[name][..., : 1 if name == "geom_friction" else 2]
                np.maximum(sliding, LEAST_FRICTION, out=sliding)
        return fields


def deviations(observations: Sequence[Observation], config: RandomiseConfig) -> dict[str, Float[np.ndarray, " entry"]]:
    """Standard deviation of the noise on every entry of every group."""
    deviations: dict[str, list[float]] = {}
    for term in observations:
        units = term.units or ("",) * len(term.names)
        noisy = term.measured and term.group != CRITIC_KEY
        deviations.setdefault(term.group, []).extend(config.noise.std(unit) if noisy else 0.0 for unit in units)
    return {group: np.array(values) for group, values in deviations.items()}
