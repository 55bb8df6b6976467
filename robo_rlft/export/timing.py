"""How late things may be: the budget of an inference, and when a runtime must stop trusting what it has."""

from __future__ import annotations

from dataclasses import dataclass

MISSED_STEPS = 3
"""Control steps in a row without news that a robot bears before it holds."""
RAMP_S, HOLD_S = 2.0, 1.0
"""Seconds of a ramp, and seconds of holding before it: ours, overridden by a robot file."""


@dataclass(frozen=True)
class Timing:
    """What a runtime must keep to, in seconds.

    Attributes:
        latency_budget_s: from an observation to the chunk made of it.
        observation_timeout_s: an observation older than this is no ground for a command: hold.
        policy_timeout_s: no new chunk for this long: hold.
        hold_s: how long a hold lasts; then the robot goes to its default pose, if it has one.
        ramp_s: how long that takes; after it the stop latches.
    """

    latency_budget_s: float
    observation_timeout_s: float
    policy_timeout_s: float
    ramp_s: float = RAMP_S
    hold_s: float = HOLD_S


def timing_of(rate_hz: float, chunk: int, execute: int) -> Timing:
    """What follows from the rate and the chunk.

    The budget is what a chunk still offers after its `execute` actions, at least one control step and at most the time
    until the next call. A chunk is trusted until it is spent, an observation for `MISSED_STEPS` control steps.

    Args:
        rate_hz: control steps per second.
        chunk: H, actions of a chunk.
        execute: actions that are executed before the next call.
    """
    spare = min(max(chunk - execute, 1), execute)
    return Timing(
        latency_budget_s=spare / rate_hz,
        observation_timeout_s=MISSED_STEPS / rate_hz,
        policy_timeout_s=max(chunk, execute + MISSED_STEPS) / rate_hz,
    )
