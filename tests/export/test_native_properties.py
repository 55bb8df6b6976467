"""Whatever is thrown at the C++ runtime, no commanded step exceeds velocity * dt, and no command leaves its range."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_rlft.export.native import LIBRARY, Clamp, Command, Fault, Flag, Mode, Runtime
from tests.export.native_bundles import Robot, write_bundle
from tests.export.test_native import COMPILER

pytestmark = pytest.mark.skipif(
    COMPILER is None and not LIBRARY.is_file(), reason="the C++ runtime cannot be built: no C++ compiler"
)
VELOCITY, ACCELERATION, RANGE = 2.0, 20.0, 1.0
HZ = 200.0

numbers = st.one_of(
    st.floats(-3, 3, width=32),
    st.sampled_from([0.0, float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-40]),
)
vectors = st.lists(numbers, min_size=5, max_size=5)
joints = st.lists(st.one_of(st.floats(-1, 1), numbers), min_size=2, max_size=2)
spans = st.one_of(st.just(1 / HZ), st.floats(0, 0.02), st.sampled_from([0.0, 1e-9, 0.05, 0.3, 5.0, -0.001, -5.0]))


@dataclass(frozen=True)
class Event:
    """One tick: how much later it is, and what happened before it."""

    after_s: float
    frame: list[float] | None
    stamp_s: float
    measured: list[float] | None
    ask: bool
    command: str


events = st.builds(
    Event,
    after_s=spans,
    frame=st.one_of(st.none(), st.just([0.5] * 5), vectors),
    stamp_s=st.one_of(st.just(0.0), st.floats(-0.1, 0.02), st.sampled_from([-10.0, 10.0])),
    measured=st.one_of(st.none(), st.just([0.1, -0.1]), joints),
    ask=st.booleans(),
    command=st.sampled_from(["", "", "", "", "", "", "", "reset", "reset", "estop"]),
)
calm = st.builds(
    Event,
    after_s=st.just(1 / HZ),
    frame=st.lists(st.floats(-3, 3, width=32), min_size=5, max_size=5),
    stamp_s=st.just(0.0),
    measured=st.just([0.1, -0.1]),
    ask=st.just(True),
    command=st.just(""),
)
scenarios = st.tuples(st.lists(calm, min_size=5, max_size=15), st.lists(events, min_size=1, max_size=40)).map(
    lambda pair: pair[0] + pair[1]
)


@functools.cache
def bundle(meaning: str) -> Path:
    """A bundle whose policy asks for three times what the range allows."""
    folder = Path(tempfile.mkdtemp(prefix="robo_rlft_")) / meaning
    robot = Robot(meaning=meaning, gain=3.0, rate_hz=50.0, chunk=16, velocity=VELOCITY, acceleration=ACCELERATION)
    return write_bundle(folder, robot)


def play(runtime: Runtime, scenario: list[Event]) -> list[tuple[float, Command]]:
    """Pairs of seconds since the last tick and the command."""
    now, out = 10**12, []
    for event in scenario:
        now += round(event.after_s * 1e9)
        if event.frame is not None:
            runtime.observe(now + round(event.stamp_s * 1e9), {"policy": np.array(event.frame)})
        if event.measured is not None:
            runtime.joint_state(now + round(event.stamp_s * 1e9), np.array(event.measured), np.zeros(2))
        if event.ask:
            runtime.policy_step(now)
        if event.command:
            getattr(runtime, event.command)()
        out.append((round(event.after_s * 1e9) * 1e-9, runtime.tick(now)))
    return out


@pytest.mark.parametrize("stitching", ["replace", "ensemble", "cross_fade"])
@settings(max_examples=40, deadline=None)
@given(scenario=scenarios, linear=st.booleans(), cut=st.booleans(), latency=st.sampled_from([0.0, 0.03, 0.3]))
def test_no_step_of_a_position_exceeds_its_limits(
    stitching: str, scenario: list[Event], linear: bool, cut: bool, latency: float
) -> None:
    with Runtime(
        bundle("joint_position"),
        stitching=stitching,
        control_hz=HZ,
        interpolation="linear" if linear else "hold",
        estop="cut" if cut else "hold",
        simulated_latency_s=latency,
    ) as runtime:
        played = play(runtime, scenario)
    check_positions(played)


def check_positions(played: list[tuple[float, Command]]) -> None:
    """Every step within velocity * dt, every target within the range, every effort within its limit."""
    before: Command | None = None
    for elapsed, command in played:
        assert np.isfinite(command.target).all()
        assert np.isfinite(command.effort).all()
        assert np.abs(command.effort).max() <= 10.0
        if Flag.ENABLED in command.flags:
            assert np.abs(command.target).max() <= RANGE
            if before is not None and Flag.ENABLED in before.flags:
                step = np.abs(command.target - before.target).max()
                assert step <= VELOCITY * min(max(elapsed, 0.0), 1 / HZ) + 1e-15
        before = command
    check_modes(played)


def check_modes(played: list[tuple[float, Command]]) -> None:
    """RUN is entered from WAIT alone, and never beside a fault."""
    modes = [command.mode for _, command in played]
    for (_, command), last in zip(played, [Mode.WAIT, *modes], strict=False):
        if command.mode == Mode.RUN:
            assert last in (Mode.WAIT, Mode.RUN) or command.latched == Fault(0)
            assert command.faults == Fault(0)


@settings(max_examples=40, deadline=None)
@given(scenario=scenarios)
def test_no_velocity_or_change_of_it_exceeds_its_limits(scenario: list[Event]) -> None:
    with Runtime(bundle("joint_velocity"), control_hz=HZ) as runtime:
        played = play(runtime, scenario)
    before = np.zeros(2)
    for elapsed, command in played:
        assert np.isfinite(command.target).all()
        assert np.abs(command.target).max() <= VELOCITY
        if Flag.ENABLED in command.flags:
            dt = min(max(elapsed, 0.0), 1 / HZ)
            assert np.abs(command.target - before).max() <= ACCELERATION * dt * (1 + 1e-9) + 1e-15
        before = command.target


@settings(max_examples=40, deadline=None)
@given(scenario=scenarios)
def test_no_effort_exceeds_its_limit_or_pushes_out_of_the_range(scenario: list[Event]) -> None:
    with Runtime(bundle("joint_effort"), control_hz=HZ) as runtime:
        played = play(runtime, scenario)
    for _, command in played:
        assert np.isfinite(command.target).all()
        assert np.abs(command.target).max() <= 1.5, "the action's own limit is below the joint's 10"
        np.testing.assert_array_equal(command.target, command.effort)


def drawn(rng: np.random.Generator) -> list[Event]:
    """A scenario like those above, drawn in numpy: a hundred times faster, for thousands of them."""

    def number() -> float:
        wild = [np.nan, np.inf, -np.inf, 3e38, -3e38]
        return float(rng.choice(wild)) if rng.random() < 0.05 else float(rng.normal())

    def event(wild: bool) -> Event:
        pick = rng.random(4) if wild else np.ones(4)
        after = float(rng.choice([0.0, 1e-9, 0.001, 0.02, 0.3, -5.0])) if pick[0] < 0.2 else 1 / HZ
        stamp = float(rng.choice([-10.0, 10.0, -0.05])) if pick[1] < 0.05 else 0.0
        frame = None if pick[2] < 0.2 else [number() if wild else float(rng.normal()) for _ in range(5)]
        measured = None if pick[3] < 0.2 else [number() * 0.5 if pick[3] < 0.25 else 0.1, -0.1]
        command = str(rng.choice(["reset", "estop"], p=[0.8, 0.2])) if wild and rng.random() < 0.1 else ""
        return Event(after, frame, stamp, measured, bool(not wild or rng.random() < 0.8), command)

    return [event(i >= 8) for i in range(30)]


@pytest.mark.parametrize("stitching", ["replace", "ensemble", "cross_fade"])
def test_no_step_exceeds_its_limits_in_thousands_of_scenarios(stitching: str) -> None:
    """One runtime lives through all of them: 1000 scenarios of 30 ticks, one after the other, with resets between."""
    rng = np.random.default_rng(0)
    with Runtime(bundle("joint_position"), stitching=stitching, control_hz=HZ, simulated_latency_s=0.01) as runtime:
        for _ in range(1000):
            runtime.reset()
            check_positions(play(runtime, drawn(rng)))


def test_the_policy_of_these_tests_does_ask_for_too_much() -> None:
    """Scenarios in which nothing had to be clamped would prove nothing."""
    runtime, seen = Runtime(bundle("joint_position"), control_hz=HZ), Clamp(0)
    rng = np.random.default_rng(0)
    for i in range(400):
        now = 10**12 + i * 5_000_000
        runtime.observe(now, {"policy": rng.normal(0, 3, 5)})
        runtime.joint_state(now, np.zeros(2), np.zeros(2))
        runtime.policy_step(now)
        seen |= runtime.tick(now).clamped
    assert seen == Clamp.POSITION | Clamp.VELOCITY | Clamp.ACCELERATION
