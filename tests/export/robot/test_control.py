"""What holds for every command, whatever comes: finite, within limits, one step from the last, stopped once stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_rlft.errors import BundleError, SpecError
from robo_rlft.export.robot.control import Limiter, Mode, PythonRuntime
from robo_rlft.export.robot.description import Description

MS = 1_000_000
PERIOD = 20 * MS


@pytest.fixture
def runtime(quadruped: Path) -> PythonRuntime:
    made = PythonRuntime(quadruped)
    made.description = replace(made.description, timing=replace(made.description.timing, ramp_s=0.0))
    return made


def observed(runtime: PythonRuntime, step: int, value: float = 0.5) -> int:
    """Give one observation of this step and the default pose; its time."""
    now = step * PERIOD
    runtime.observe(now, {"policy": np.full(45, value, np.float32)})
    assert runtime.description.joints is not None
    runtime.joint_state(now, runtime.description.joints.default, np.zeros(12))
    return now


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-100, 100), st.integers(0, 12)), min_size=1, max_size=30))
def test_every_command_is_near_the_last_and_within_limits(quadruped: Path, events: list[tuple[float, int]]) -> None:
    runtime = _shared(quadruped)
    runtime.reset()
    joints = runtime.description.joints
    assert joints is not None
    last, now = joints.default, PERIOD
    observed(runtime, 1)
    for value, silence in events:
        now += PERIOD * silence
        runtime.observe(now, {"policy": np.full(45, value, np.float32)})
        command = runtime.tick(now)
        assert np.isfinite(command.target).all()
        assert (np.abs(command.target - last) <= joints.velocity / 50.0 + 1e-9).all()
        assert (command.target >= joints.position_low - 1e-9).all()
        assert (command.target <= joints.position_high + 1e-9).all()
        last = command.target


_LOADED: dict[Path, PythonRuntime] = {}


def _shared(bundle: Path) -> PythonRuntime:
    if bundle not in _LOADED:
        _LOADED[bundle] = PythonRuntime(bundle)
    return _LOADED[bundle]


def test_it_begins_where_the_joints_are(runtime: PythonRuntime) -> None:
    runtime.observe(PERIOD, {"policy": np.zeros(45, np.float32)})
    assert runtime.tick(PERIOD).mode is Mode.WAIT
    start = np.full(12, 0.3)
    runtime.joint_state(PERIOD, start, np.zeros(12))
    command = runtime.tick(PERIOD)
    joints = runtime.description.joints
    assert joints is not None
    assert command.mode is Mode.RUN
    assert (np.abs(command.target - start) <= joints.velocity / 50.0 + 1e-9).all()


def test_a_stale_observation_holds_within_one_tick_and_then_stops(runtime: PythonRuntime) -> None:
    timing = runtime.description.timing
    target = runtime.tick(observed(runtime, 1)).target
    late = PERIOD + round(timing.observation_timeout_s * 1e9) + 1
    held = runtime.tick(late)
    assert (held.mode, held.flags) == (Mode.HOLD, {"stale_observation"})
    np.testing.assert_array_equal(held.target, target)
    stopped = runtime.tick(late + round(timing.hold_s * 1e9) + 1)
    assert (stopped.mode, stopped.flags) == (Mode.STOP, {"hold_too_long"})
    # News does not lift a stop; only a reset does.
    assert runtime.tick(observed(runtime, 9999)).mode is Mode.STOP
    runtime.reset()
    assert runtime.tick(observed(runtime, 10001)).mode is Mode.RUN


def test_news_lifts_a_hold(runtime: PythonRuntime) -> None:
    runtime.tick(observed(runtime, 1))
    assert runtime.tick(PERIOD * 20).mode is Mode.HOLD
    assert runtime.tick(observed(runtime, 21)).mode is Mode.RUN


def test_an_emergency_stop_is_latched_and_moves_nothing(runtime: PythonRuntime) -> None:
    target = runtime.tick(observed(runtime, 1)).target
    runtime.estop()
    for step in range(2, 6):
        command = runtime.tick(observed(runtime, step, value=step))
        assert (command.mode, command.flags) == (Mode.STOP, {"emergency_stop"})
        np.testing.assert_array_equal(command.target, target)


def test_stopped_before_anything_was_seen(runtime: PythonRuntime) -> None:
    runtime.estop()
    command = runtime.tick(PERIOD)
    assert command.mode is Mode.STOP
    assert np.isnan(command.target).all()
    assert runtime.tick(observed(runtime, 2)).mode is Mode.STOP


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_grows_old(runtime: PythonRuntime, bad: float) -> None:
    runtime.tick(observed(runtime, 1))
    row = np.zeros(45, np.float32)
    row[7] = bad
    with pytest.raises(SpecError, match="finite"):
        runtime.observe(2 * PERIOD, {"policy": row})
    assert runtime.tick(PERIOD * 20).mode is Mode.HOLD


@pytest.mark.parametrize("given", [{"policy": np.zeros(44)}, {"polciy": np.zeros(45)}, {}])
def test_another_shape_or_key_is_refused(runtime: PythonRuntime, given: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="policy"):
        runtime.observe(PERIOD, given)


def test_an_older_observation_is_ignored(runtime: PythonRuntime) -> None:
    now = observed(runtime, 5, value=0.25)
    first = runtime.tick(now).target
    runtime.reset()
    observed(runtime, 5, value=0.25)
    observed(runtime, 4, value=80.0)
    np.testing.assert_array_equal(runtime.tick(now).target, first)


def test_a_hold_that_lasts_leads_to_the_default_pose_and_a_stop(quadruped: Path) -> None:
    runtime = PythonRuntime(quadruped)
    timing = replace(runtime.description.timing, hold_s=0.1, ramp_s=1.0)
    runtime.description = replace(runtime.description, timing=timing)
    joints = runtime.description.joints
    assert joints is not None
    start = joints.default + 0.4 * (joints.position_high - joints.default)
    runtime.observe(PERIOD, {"policy": np.zeros(45, np.float32)})
    modes, targets = [], []
    for step in range(1, 90):
        # The joints are seen all the time, the observation never again.
        runtime.joint_state(step * PERIOD, start, np.zeros(12))
        command = runtime.tick(step * PERIOD)
        modes.append(command.mode)
        targets.append(command.target)
    ramp = [i for i, mode in enumerate(modes) if mode is Mode.RAMP]
    assert len(ramp) == 50
    assert modes == sorted(modes, key=[Mode.RUN, Mode.HOLD, Mode.RAMP, Mode.STOP].index)
    np.testing.assert_allclose(targets[ramp[-1]], joints.default, atol=1e-9)
    assert (np.abs(np.diff(targets, axis=0)) <= joints.velocity / 50.0 + 1e-9).all()


def test_news_does_not_lead_back_from_the_ramp(runtime: PythonRuntime) -> None:
    runtime.description = replace(runtime.description, timing=replace(runtime.description.timing, ramp_s=1.0))
    runtime.tick(observed(runtime, 1))
    joints = runtime.description.joints
    assert joints is not None
    late = 30 * PERIOD
    assert runtime.tick(late).mode is Mode.HOLD
    late += round(runtime.description.timing.hold_s * 1e9) + PERIOD
    runtime.joint_state(late, joints.default, np.zeros(12))
    assert runtime.tick(late).mode is Mode.RAMP
    runtime.observe(late + PERIOD, {"policy": np.zeros(45, np.float32)})
    assert runtime.tick(late + PERIOD).mode is Mode.RAMP


def test_a_policy_that_gives_nan_stops_the_robot(runtime: PythonRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    target = runtime.tick(observed(runtime, 1)).target

    def broken(*_: object) -> np.ndarray:
        return np.full((1, 1, 12), np.nan, np.float32)

    monkeypatch.setattr(runtime._controller, "act", broken)
    command = runtime.tick(observed(runtime, 2))
    assert (command.mode, command.flags) == (Mode.STOP, {"policy_failed"})
    np.testing.assert_array_equal(command.target, target)


def test_a_joint_without_a_velocity_limit_is_refused(runtime: PythonRuntime) -> None:
    joints = runtime.description.joints
    assert joints is not None
    velocity = joints.velocity.copy()
    velocity[4] = np.inf
    description: Description = replace(runtime.description, joints=replace(joints, velocity=velocity))
    with pytest.raises(BundleError, match=r"FR_thigh_joint.*no velocity limit"):
        Limiter(description)


def test_an_arm_that_holds_is_told_to_move_no_further(arm: Path) -> None:
    runtime = PythonRuntime(arm)
    runtime.observe(PERIOD, {"policy": np.ones(21, np.float32)})
    moving = runtime.tick(PERIOD)
    assert moving.mode is Mode.RUN
    assert np.abs(moving.target).max() > 0
    held = runtime.tick(100 * PERIOD)
    assert held.mode is Mode.HOLD
    np.testing.assert_array_equal(held.target, np.zeros(6))


def test_chunks_are_those_of_the_controller(arm: Path) -> None:
    """Two actions of a chunk, then the next chunk, with the last two observations, oldest first."""
    runtime = PythonRuntime(arm, seed=7)
    rng, rows = np.random.default_rng(7), [np.full(21, v, np.float32) for v in (0.1, 0.2, 0.3, 0.4)]
    got = []
    for step, row in enumerate(rows, 1):
        runtime.observe(step * PERIOD, {"policy": row})
        got.append(runtime.tick(step * PERIOD).target)
    act, noise = runtime._controller.act, [rng.standard_normal((1, 4, 6), dtype=np.float32) for _ in range(2)]
    first = act({"policy": np.stack([rows[0], rows[0]])[None]}, noise[0])[0]
    second = act({"policy": np.stack([rows[1], rows[2]])[None]}, noise[1])[0]
    actions = np.stack([first[0], first[1], second[0], second[1]])
    np.testing.assert_allclose(got, runtime.description.action.target(actions), atol=1e-12)
