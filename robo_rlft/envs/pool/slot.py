"""One environment with its episode: seeds, steps, success, automatic resets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from robo_rlft.envs.mujoco import generators
from robo_rlft.envs.pool.single import Frame, Outcome, SingleEnv

Row = Mapping[str, np.ndarray]
"""One environment's views into the arenas."""
LARGEST_SEED = 2**31 - 1
"""Simulators take seeds of 31 bits."""


class Slot:
    """Keeps a `SingleEnv` going from episode to episode.

    The first episode after `seed` is the one of that seed; those after it take their seeds from its generator.

    Args:
        env: the environment.
        seed: of its first episode; None draws from the operating system.
    """

    def __init__(self, env: SingleEnv, seed: int | None) -> None:
        self.env = env
        self.steps, self.success, self.nan_resets = 0, False, 0
        self.variant = self.next_variant = 0
        self.metrics = np.zeros(len(env.metrics))
        self.begun = False
        self.seed(seed)

    def seed(self, seed: int | None) -> None:
        """Decide all episodes from the next one on."""
        self._generator = np.random.default_rng(seed)
        self._given = seed

    def begin(self) -> Frame:
        """Start the next episode; returns its first observation."""
        seed = int(self._generator.integers(LARGEST_SEED)) if self._given is None else self._given
        self._given = None
        self.variant = self.next_variant
        self.env.reset(seed, self.variant)
        self.steps, self.success, self.begun = 0, False, True
        self.metrics[:] = 0.0
        return self.env.observe()

    def chunk(self, actions: Float[np.ndarray, "chunk action"], record: bool, row: Row) -> None:
        """Make the steps of a chunk up to the end of the episode, then begin the next one.

        Args:
            actions: to be executed.
            record: also fill `trace/<key>`, with the last observation repeated after the end.
            row: `reward`, `terminated`, `truncated`, `success`, `length`, `metrics`, `obs/<key>`, `final/<key>`.
        """
        if not self.begun:
            _write(row, "obs", self.begin())
        if record:
            _write(row, "trace", {k: row[f"obs/{k}"] for k in self.env.robot.observation}, 0)
        row["reward"][: len(actions)] = 0.0
        outcome, length, seen = Outcome(0.0), 0, self._looked_at(row)
        for h, action in enumerate(actions):
            outcome, seen = self._step(action, seen, look=record or h == len(actions) - 1)
            length = h + 1
            row["reward"][h] = outcome.reward
            if record:
                _write(row, "trace", seen, length)
            if outcome.terminated or outcome.truncated:
                break
        if record:
            _repeat(row, self.env.robot.observation, length, len(actions))
        self._finish(row, outcome, seen, length)

    def get_state(self) -> Frame:
        """Everything that decides the future of this environment."""
        own: dict[str, Any] = {
            "steps": np.int64(self.steps),
            "success": np.bool_(self.success),
            "variant": np.array([self.variant, self.next_variant], np.int64),
            "metrics": self.metrics.copy(),
            "given": np.int64(-1 if self._given is None else self._given),
            "generator": generators.pack([self._generator])[0],
        }
        single = self.env.get_state()
        return {f"pool/{k}": np.asarray(v) for k, v in own.items()} | {f"sim/{k}": v for k, v in single.items()}

    def set_state(self, state: Frame) -> Frame:
        """Go on from a saved state; returns its observation."""
        self.steps, self.success = int(state["pool/steps"]), bool(state["pool/success"])
        self.variant, self.next_variant = (int(v) for v in state["pool/variant"])
        self.metrics = np.array(state["pool/metrics"])
        given = int(state["pool/given"])
        self._given = None if given < 0 else given
        generators.unpack(state["pool/generator"][None], [self._generator], np.arange(1))
        self.env.set_state({k.removeprefix("sim/"): v for k, v in state.items() if k.startswith("sim/")})
        self.begun = True
        return self.env.observe()

    def _step(self, action: np.ndarray, seen: Frame, look: bool) -> tuple[Outcome, Frame]:
        """One step and the newest observation that was looked at: at the end of an episode always."""
        outcome = self.env.step(action)
        self.steps += 1
        over = outcome.terminated or outcome.truncated
        if not over and self.steps >= self.env.robot.max_episode_steps:
            outcome.truncated = over = True
        frame = self.env.observe() if look or over else seen
        if not np.isfinite(outcome.reward) or not _finite(frame):
            # The episode is cut off before the step whose results make no sense.
            self.nan_resets += 1
            return Outcome(0.0, truncated=True), seen
        self.success |= outcome.success
        self.metrics[:] = [outcome.metrics[name] for name in self.env.metrics]
        return outcome, frame

    def _looked_at(self, row: Row) -> Frame:
        return {k: row[f"obs/{k}"].copy() for k in self.env.robot.observation}

    def _finish(self, row: Row, outcome: Outcome, frame: Frame, length: int) -> None:
        row["terminated"][()] = outcome.terminated
        row["truncated"][()] = outcome.truncated and not outcome.terminated
        row["success"][()], row["length"][()] = self.success, length
        row["metrics"][:], row["nan_resets"][()] = self.metrics, self.nan_resets
        _write(row, "final", frame)
        over = outcome.terminated or outcome.truncated
        _write(row, "obs", self.begin() if over else frame)


def _write(row: Row, group: str, frame: Frame, at: int | None = None) -> None:
    for key, value in frame.items():
        target = row[f"{group}/{key}"]
        target[... if at is None else at] = value


def _repeat(row: Row, keys: Mapping[str, Any], last: int, count: int) -> None:
    for key in keys:
        row[f"trace/{key}"][last + 1 : count + 1] = row[f"trace/{key}"][last]


def _finite(frame: Frame) -> bool:
    return all(np.isfinite(v).all() for v in frame.values() if v.dtype.kind == "f")
