"""What happened to a car so far in its episode, from what MetaDrive says of each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robo_rlft.envs.pool.single import Outcome

METRICS = ("arrive", "crash", "out_of_road", "max_step", "route_completion", "cost")
"""Figures of an episode: 0 or 1 for what happened at any time, the share of the route driven, and the sum of costs."""


class Ledger:
    """Keeps the figures of one car's episode.

    Args:
        horizon: control steps of an episode.
    """

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.begin()

    def begin(self) -> None:
        """A new episode."""
        self.steps, self.figures = 0, dict.fromkeys(METRICS, 0.0)

    def enter(self, reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> Outcome:
        """Take in one step."""
        self.steps += 1
        figures, arrived = self.figures, bool(info["arrive_dest"])
        happened = {"arrive": arrived, "crash": info["crash"], "out_of_road": info["out_of_road"]}
        for name, value in happened.items():
            figures[name] = max(figures[name], float(value))
        figures["route_completion"] = float(info["route_completion"])
        figures["cost"] += float(info["cost"])
        over = bool(truncated) or self.steps >= self.horizon
        figures["max_step"] = float(over and not terminated)
        return Outcome(float(reward), bool(terminated), bool(truncated), arrived, dict(figures))
