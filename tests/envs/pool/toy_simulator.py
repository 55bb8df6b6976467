"""A tiny exact simulator for tests of the pool: a point on a line that must reach 1."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from robo_rlft.envs.pool.single import Frame, Outcome, SingleEnv
from robo_rlft.errors import ConfigError
from robo_rlft.spec import ArraySpec, RobotSpec


class Toy(SingleEnv):
    """x += a + noise; ends at |x| > 1 (success above), truncated after 12 steps. Variants start left and right."""

    fidelity = "exact"
    has_success = True
    has_expert = True
    metrics = ("distance",)
    variants = ("left", "right")

    def __init__(self, dies_at: float = 2.0, bad: str = "") -> None:
        if bad == "user":
            raise ConfigError("toy is missing its asset: run make toys")
        self.dies_at, self.bad = dies_at, bad
        self.robot = RobotSpec(
            "Toy",
            {"policy": ArraySpec((3,), names=("x", "pid", "side")), "image/dot": ArraySpec((2, 2, 3), "uint8")},
            ArraySpec((1,), names=("dx",), low=(-1.0,), high=(1.0,)),
            10.0,
            12,
        )
        self.x, self.distance, self.side, self.rng = 0.0, 0.0, 0, np.random.default_rng(0)

    def reset(self, seed: int, variant: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.side, self.distance = variant, 0.0
        self.x = float(self.rng.uniform(0.0, 0.3)) * (1 if variant else -1)
        self.instruction = f"go {self.variants[variant]}"

    def step(self, action: np.ndarray) -> Outcome:
        move = 0.2 * float(action[0]) + 0.02 * float(self.rng.standard_normal())
        self.x += move
        self.distance += abs(move)
        if self.x > self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.bad == "hang":
            time.sleep(60)
        if self.bad == "bug":
            raise ZeroDivisionError("toy divided by zero")
        reward = float("nan") if self.bad == "nan" else self.x
        return Outcome(reward, abs(self.x) > 1.0, False, self.x > 1.0, {"distance": self.distance})

    def observe(self) -> Frame:
        dot = np.full((2, 2, 3), int(100 * abs(self.x)) % 256, np.uint8)
        return {"policy": np.array([self.x, 0.0, self.side], np.float32), "image/dot": dot}

    def expert_action(self) -> np.ndarray:
        return np.array([1.0 if self.side else -1.0])

    def get_state(self) -> Frame:
        word = self.rng.bit_generator.state
        full = [word["state"]["state"], word["state"]["inc"]]
        rng = np.array([part >> shift & (2**64 - 1) for part in full for shift in (64, 0)], np.uint64)
        return {"x": np.array([self.x, self.distance, self.side]), "rng": rng}

    def set_state(self, state: Frame) -> None:
        self.x, self.distance, side = (float(v) for v in state["x"])
        self.side = int(side)
        a, b, c, d = (int(v) for v in state["rng"])
        self.rng.bit_generator.state |= {"state": {"state": a << 64 | b, "inc": c << 64 | d}}
        self.instruction = f"go {self.variants[self.side]}"

    def render(self, camera: str | None, size: tuple[int, int]) -> np.ndarray:
        image = np.full((*size, 3), int(100 * abs(self.x)), np.uint8)
        image[-1] = 255
        return image
