"""Domain randomisation: how one episode differs from another. One configuration for every simulator.

Each episode draws its own values from its own seed, in a stream apart from everything else: the same seed gives the
same episode with and without, but for what is randomised. What a simulator does not support is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt64

from robo_rlft.errors import ConfigError

STREAM = 0x70687973
"""Keeps these draws apart from any other made from the same generator's state."""


@dataclass
class NoiseConfig:
    """Gaussian noise on what a robot measures, by unit: standard deviations, drawn anew in every control step.

    Commands, last actions and the value function's own observations (`critic`) have none.

    Attributes:
        rad: of angles, rad.
        rad_s: of angular velocities, rad/s.
        m: of distances, m.
        m_s: of velocities, m/s.
        newton: of forces and torques, N and N m.
        unitless: of what has no unit, such as the direction of gravity.
    """

    rad: float = 0.0
    rad_s: float = 0.0
    m: float = 0.0
    m_s: float = 0.0
    newton: float = 0.0
    unitless: float = 0.0

    def std(self, unit: str) -> float:
        """Of an entry with this unit; 0 for units that have no noise of their own."""
        return float(getattr(self, _NOISE_UNITS[unit])) if unit in _NOISE_UNITS else 0.0


_NOISE_UNITS = {
    "rad": "rad",
    "rad/s": "rad_s",
    "m": "m",
    "m/s": "m_s",
    "N": "newton",
    "N m": "newton",
    "": "unitless",
}


@dataclass
class RandomiseConfig:
    """What varies from episode to episode. Ranges are [low, high], drawn uniformly; the defaults vary nothing.

    Attributes:
        mass: factors of every body's mass and inertia, one for each body.
        friction: factor of all coefficients of friction, one for all.
        gains: factors of every actuator's strength, stiffness and damping, one for each actuator.
        latency_s: how late commands reach the actuators, s; rounded to whole control steps.
        push_velocity: pushes change the base's horizontal velocity by up to this along x and y, m/s.
        push_interval_s: time between pushes, s.
        noise: on observations.
        colour: how far the colours of materials and geoms go to a random colour, 0 to 1.
        light: 1: lights move by up to .5 m along each axis and brighten or darken by up to a half; 0: none.
        camera: 1: cameras move by up to 2 cm along and turn by up to 3 degrees about each axis, and the field of view
            changes by up to a tenth; 0: none.
    """

    mass: list[float] = field(default_factory=lambda: [1.0, 1.0])
    friction: list[float] = field(default_factory=lambda: [1.0, 1.0])
    gains: list[float] = field(default_factory=lambda: [1.0, 1.0])
    latency_s: list[float] = field(default_factory=lambda: [0.0, 0.0])
    push_velocity: float = 0.0
    push_interval_s: float = 5.0
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    colour: float = 0.0
    light: float = 0.0
    camera: float = 0.0

    @property
    def active(self) -> tuple[str, ...]:
        """The fields that vary something: those without their default. The interval of pushes alone varies nothing."""
        plain = RandomiseConfig()
        names = (f.name for f in fields(self) if f.name != "push_interval_s")
        return tuple(name for name in names if _plain(getattr(self, name)) != _plain(getattr(plain, name)))

    @property
    def looks(self) -> bool:
        """Whether images vary."""
        return any(name in LOOKS for name in self.active)


LOOKS = ("colour", "light", "camera")
"""Fields that change images and nothing else."""
PHYSICS = tuple(f.name for f in fields(RandomiseConfig) if f.name not in (*LOOKS, "push_interval_s"))
"""Fields that change what happens or what is measured."""


def require_supported(config: RandomiseConfig | None, supported: Iterable[str], env_id: str) -> None:
    """Check a configuration before a simulator is made.

    Args:
        config: what is asked for; None asks for nothing.
        supported: names of the fields that this environment can vary.
        env_id: for the message.

    Raises:
        ConfigError: a field varies that the environment cannot vary, or a range is none.
    """
    if config is None:
        return
    known = tuple(supported)
    if missing := [name for name in config.active if name not in known]:
        can = f"it can vary {', '.join(known)}" if known else "it can vary nothing"
        raise ConfigError(
            f"environment {env_id} cannot vary {', '.join(f'env.randomise.{name}' for name in missing)}: {can}; leave "
            "the others at their defaults"
        )
    for problem in wrong_ranges(config):
        raise ConfigError(problem)


def wrong_ranges(config: RandomiseConfig) -> Iterator[str]:
    """What is wrong with the ranges, one sentence each."""
    for name in ("mass", "friction", "gains", "latency_s"):
        values = getattr(config, name)
        if len(values) != 2 or not 0.0 <= values[0] <= values[1]:
            yield f"env.randomise.{name} is {list(values)}: give [low, high] with 0 <= low <= high"
    if config.mass[0] == 0:
        yield f"env.randomise.mass is {list(config.mass)}: a body without mass cannot move, begin above 0"


class Draw(NamedTuple):
    """What one episode varies: factors, the latency's place in its range, and what noise and pushes follow from."""

    salt: np.uint64
    mass: Float[np.ndarray, " body"]
    friction: float
    gains: Float[np.ndarray, " motor"]
    latency: float
    first_push: float


def draw(key: UInt64[np.ndarray, " word"], config: RandomiseConfig, bodies: int, motors: int) -> Draw:
    """What the key of an episode decides. Every draw is made whatever varies: no setting changes what another gives."""
    rng = np.random.default_rng([STREAM, *(int(word) for word in key)])
    return Draw(
        salt=rng.integers(2**64, dtype=np.uint64),
        mass=_within(rng, config.mass, bodies),
        friction=float(_within(rng, config.friction, 1)[0]),
        gains=_within(rng, config.gains, motors),
        latency=rng.uniform(),
        first_push=rng.uniform(),
    )


def normal(
    salt: UInt64[np.ndarray, " row"], step: Int[np.ndarray, " row"], width: int
) -> Float[np.ndarray, "row width"]:
    """Standard normal numbers that an episode's salt and a step's number decide: noise without a generator to keep.

    A counter-based generator: SplitMix64 (Steele et al. 2014) of salt, step and column, then Box and Muller (1958).
    """
    counter = step.astype(np.uint64)[:, None] * np.uint64(2 * width) + np.arange(2 * width, dtype=np.uint64)
    words = _split_mix(salt[:, None] + _GOLDEN * (counter + np.uint64(1)))
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = uniform[:, :width], 2.0 * np.pi * uniform[:, width:]
    return np.sqrt(-2.0 * np.log(radius)) * np.cos(angle)


def uniform(
    salt: UInt64[np.ndarray, " row"], step: Int[np.ndarray, " row"], width: int
) -> Float[np.ndarray, "row width"]:
    """Numbers from -1 to 1 that an episode's salt and a number decide."""
    counter = step.astype(np.uint64)[:, None] * np.uint64(width) + np.arange(width, dtype=np.uint64)
    words = _split_mix(~salt[:, None] + _GOLDEN * (counter + np.uint64(1)))
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-52 - 1.0


def _within(rng: np.random.Generator, bounds: Sequence[float], count: int) -> Float[np.ndarray, " draw"]:
    return rng.uniform(bounds[0], bounds[1], count)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _split_mix(z: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64; its arithmetic is modulo 2^64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return tuple(getattr(value, f.name) for f in fields(value))
    return tuple(value) if isinstance(value, list | tuple) else value
