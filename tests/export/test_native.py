"""The C++ runtime through its Python class: actions of the reference, refusals, and what faults make the robot do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robo_rlft.errors import BundleError, ConfigError, RunError, SpecError, UserError
from robo_rlft.export import native
from robo_rlft.export.native import LIBRARY, Clamp, Command, Fault, Flag, Mode, Runtime
from tests.export.native_bundles import ACTIVATIONS, Network, Robot, seal, write_bundle

COMPILER = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
pytestmark = pytest.mark.skipif(
    COMPILER is None and not LIBRARY.is_file(), reason="the C++ runtime cannot be built: no C++ compiler"
)
PERIOD_NS = 20_000_000
START_NS = 10_000_000_000


class Loop:
    """An ideal robot of a bundle, in simulated time; faults are what a test changes about it.

    Attributes:
        measured: what it reports instead of where it is.
        commands: all of them.
        steps: change of each enabled target from where the robot was, [ticks, A].
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.now = runtime, START_NS
        self.position = np.zeros(2)
        self.observing = self.asking = self.measuring = True
        self.observation: np.ndarray | Callable[[], np.ndarray] = np.ones(5)
        self.measured: np.ndarray | None = None
        self.commands: list[Command] = []
        self.steps: list[np.ndarray] = []

    def tick(self) -> Command:
        self.now += PERIOD_NS
        if self.observing:
            seen = self.observation() if callable(self.observation) else self.observation
            self.runtime.observe(self.now, {"policy": seen})
        if self.measuring:
            measured = self.position if self.measured is None else self.measured
            self.runtime.joint_state(self.now, measured, np.zeros_like(measured))
        if self.asking:
            self.runtime.policy_step(self.now)
        command = self.runtime.tick(self.now)
        self.commands.append(command)
        if Flag.ENABLED in command.flags:
            self.steps.append(command.target - self.position)
            self.position = command.target
        return command

    def run(self, ticks: int) -> Command:
        for _ in range(ticks):
            self.tick()
        return self.commands[-1]

    def until(self, mode: Mode, ticks: int) -> int:
        """Ticks until a mode is reached, the one in which it is included."""
        for i in range(ticks):
            if self.tick().mode == mode:
                return i + 1
        raise AssertionError(f"no {mode.name} within {ticks} ticks")

    @property
    def largest_step(self) -> float:
        return float(np.abs(self.steps).max())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", Robot())


@pytest.fixture
def loop(folder: Path) -> Loop:
    """In RUN."""
    made = Loop(Runtime(folder))
    assert made.run(30).mode == Mode.RUN
    return made


def altered(folder: Path, **entries: Any) -> Path:
    """The bundle with entries of runtime.json changed, and sealed again."""
    content = json.loads((folder / "runtime.json").read_text())
    for name, value in entries.items():
        *path, last = name.split("__")
        place = content
        for key in path:
            place = place[key]
        place[last] = value
    seal(folder, json.dumps(content).encode())
    return folder


@pytest.mark.parametrize("backend", ["native", "onnx"])
@pytest.mark.parametrize("kind", ["flow_mlp", "mlp"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_both_backends_play_the_actions_of_the_reference(
    tmp_path: Path, backend: str, kind: str, activation: str
) -> None:
    robot = Robot(kind=kind, activation=activation, velocity=1e9, acceleration=None, gain=0.5)
    network = Network(robot, seed=5)
    runtime = Runtime(write_bundle(tmp_path / "b", robot, network), backend=backend)
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(20, robot.width)).astype(np.float32)
    noise = rng.standard_normal((5, robot.chunk, 2), dtype=np.float32)
    chunk = np.empty((robot.chunk, 2))
    for i, frame in enumerate(frames):
        now = START_NS + i * PERIOD_NS
        runtime.observe(now, {"policy": frame})
        runtime.joint_state(now, np.zeros(2), np.zeros(2))
        if i % robot.execute == 0:
            runtime.policy_step(now, noise[i // robot.execute])
            history = np.stack([frames[max(i - 1, 0)], frame])[None]
            chunk = network.act(history, noise[None, i // robot.execute])[0]
        command = runtime.tick(now)
        expected = chunk[i % robot.execute].clip(-1, 1)
        assert command.mode == Mode.RUN
        np.testing.assert_allclose(command.target, expected, rtol=0, atol=2e-6)
        # Joint PD by hand: 50 (target - 0) - 2 * 0 within 10.
        np.testing.assert_allclose(command.effort, (50 * command.target).clip(-10, 10), rtol=0, atol=1e-12)


def test_a_first_frame_fills_the_history_and_noise_is_drawn_by_seed(folder: Path) -> None:
    targets = []
    for seed in (1, 1, 2):
        loop = Loop(Runtime(folder, seed=seed))
        targets.append(loop.run(40).target)
    np.testing.assert_array_equal(targets[0], targets[1])
    assert not np.allclose(targets[0], targets[2])


def test_settings_and_sizes_are_checked(folder: Path, loop: Loop) -> None:
    for settings in ({"backend": "cuda"}, {"stitching": "glue"}, {"interpolation": "cubic"}, {"estop": "jump"}):
        with pytest.raises(ConfigError, match="unknown"):
            Runtime(folder, **settings)  # pyright: ignore[reportArgumentType]
    with pytest.raises(BundleError, match="prefix and delay"):
        Runtime(folder, stitching="real_time")
    with pytest.raises(BundleError, match="inline_policy needs the native backend"):
        Runtime(folder, backend="onnx", inline_policy=True)
    with pytest.raises(SpecError, match=r"must have shape \[5\], got \[4\]"):
        loop.runtime.observe(0, {"policy": np.zeros(4)})
    with pytest.raises(SpecError, match="reads observations"):
        loop.runtime.observe(0, {"polciy": np.zeros(5)})
    with pytest.raises(SpecError, match="position"):
        loop.runtime.joint_state(0, np.zeros(3), np.zeros(3))
    with pytest.raises(SpecError, match="noise"):
        loop.runtime.policy_step(0, np.zeros((1, 2)))
    with pytest.raises(ConfigError, match="above 0"):
        loop.runtime.tighten(velocity=np.zeros(2))
    with pytest.raises(ConfigError, match="cartesian"):
        loop.runtime.set_workspace(np.zeros(2), np.zeros(2), np.ones(2))
    loop.runtime.close()
    with pytest.raises(RunError, match="was closed"):
        loop.runtime.tick(0)


def test_a_missing_library_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    with pytest.raises(UserError, match="make runtime"):
        Runtime(folder)
    monkeypatch.undo()
    monkeypatch.setenv(native.ONNXRUNTIME_VARIABLE, str(tmp_path / "nothing.so"))
    with pytest.raises(BundleError, match="cannot load ONNX Runtime"):
        Runtime(folder, backend="onnx")


@pytest.mark.parametrize(
    "name", ["policy.onnx", "weights.safetensors", "golden.npz", "runtime.json", "controller.yaml"]
)
def test_a_changed_byte_in_any_file_is_refused(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match="altered"):
        Runtime(folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match="cannot read"):
        Runtime(folder)


def test_joints_are_matched_by_name_and_wrong_ones_refused(folder: Path) -> None:
    runtime = Runtime(folder, joints=["gripper", "joint_1", "joint_0"])
    runtime.joint_state(START_NS, np.array([9.0, 0.1, -0.3]), np.zeros(3))
    np.testing.assert_array_equal(runtime.tick(START_NS).target, [-0.3, 0.1])
    with pytest.raises(SpecError, match="no joint 'joint_0'"):
        Runtime(folder, joints=["joint_1", "elbow"])
    with pytest.raises(SpecError, match="'joint_1' twice"):
        Runtime(folder, joints=["joint_0", "joint_1", "joint_1"])


def test_joints_far_outside_their_range_keep_it_waiting(folder: Path) -> None:
    loop = Loop(Runtime(folder))
    loop.position = np.array([2.0, 0.0])
    command = loop.run(20)
    assert command.mode == Mode.WAIT
    assert command.faults == Fault.JOINTS_OUTSIDE
    assert Flag.ENABLED not in command.flags


def test_nothing_moves_before_observation_joints_and_chunk_are_there(folder: Path) -> None:
    for lacking in ("observing", "measuring", "asking"):
        loop = Loop(Runtime(folder))
        setattr(loop, lacking, False)
        command = loop.run(50)
        assert command.mode == Mode.WAIT
        assert Fault.NOT_READY in command.faults
        assert Flag.ENABLED not in command.flags
        setattr(loop, lacking, True)
        assert loop.until(Mode.RUN, 3) <= 3


def stop_observing(loop: Loop) -> None:
    loop.observing = False


def stop_measuring(loop: Loop) -> None:
    loop.measuring = False


def kill_the_policy(loop: Loop) -> None:
    loop.asking = False


def set_the_clock_back(loop: Loop) -> None:
    loop.now -= 5_000_000_000


def set_the_clock_forward(loop: Loop) -> None:
    loop.now += 5_000_000_000


def break_the_observation(loop: Loop) -> None:
    loop.observation = np.array([1, 1, np.nan, 1, 1])


def break_the_joints(loop: Loop) -> None:
    loop.measured = np.array([np.nan, 0.0])


def break_the_network(loop: Loop) -> None:
    loop.observation = np.full(5, 3e38)  # finite, but not once it is divided by a scale below 1 without a clip


# What is injected, what it is called, and the last tick in which HOLD must be there: 60 ms of observation timeout at
# 20 ms a tick, 160 ms of policy timeout, at once where something is plainly wrong.
INJECTED = [
    (stop_observing, Fault.OBSERVATION_STALE, 4),
    (break_the_observation, Fault.OBSERVATION_STALE, 4),
    (stop_measuring, Fault.JOINTS_STALE, 4),
    (kill_the_policy, Fault.POLICY_LATE | Fault.CHUNK_SPENT, 9),
    (set_the_clock_back, Fault.CLOCK_BACKWARDS, 1),
    (set_the_clock_forward, Fault.CLOCK_FORWARDS, 1),
    (break_the_joints, Fault.JOINTS_INVALID, 1),
    (break_the_network, Fault.POLICY_NOT_FINITE, 1),
]


@pytest.mark.parametrize(("inject", "fault", "within"), INJECTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_holds_the_robot_in_time_and_for_good(
    tmp_path: Path, inject: Callable[[Loop], None], fault: Fault, within: int
) -> None:
    loop = Loop(Runtime(write_bundle(tmp_path / "b", Robot(obs_clip=None, overrides={"timing.hold_s": 2.0}))))
    assert loop.run(30).mode == Mode.RUN
    moving = loop.position.copy()
    inject(loop)
    assert loop.until(Mode.HOLD, 60) <= within
    assert loop.commands[-1].latched & fault
    command = loop.run(20)
    targets = np.stack([moving, *(c.target for c in loop.commands[30:])])
    steps = np.abs(np.diff(targets, axis=0)).max(axis=1)
    assert steps.max() <= 2.0 * 0.02, "velocity times period"
    # From 2 rad/s at 20 rad/s^2 a stop takes 0.1 s: 5 ticks, and no motion after it.
    assert steps[-15:].max() == 0
    assert Flag.ENABLED in command.flags
    loop.observing = loop.measuring = loop.asking = True
    loop.observation, loop.measured = np.ones(5), None
    assert loop.run(20).mode in (Mode.HOLD, Mode.RAMP), "latched although all is well again"
    loop.runtime.reset()
    assert loop.until(Mode.RUN, 5) <= 5
    assert loop.largest_step <= 2.0 * 0.02


def test_hold_becomes_ramp_and_ramp_ends_in_estop_at_the_default_pose(loop: Loop) -> None:
    loop.asking = False
    loop.until(Mode.HOLD, 20)
    assert loop.until(Mode.RAMP, 40) >= 10, "hold_s is 0.2 s"
    assert loop.until(Mode.ESTOP, 200) >= 25, "ramp_s is 0.5 s"
    np.testing.assert_allclose(loop.position, 0.25, atol=1e-5)
    assert loop.largest_step <= 2.0 * 0.02
    loop.asking = True
    command = loop.run(50)
    assert command.mode == Mode.ESTOP
    np.testing.assert_allclose(command.target, 0.25, atol=1e-5)
    loop.runtime.reset()
    assert loop.until(Mode.RUN, 5) <= 5


def test_a_robot_without_a_default_pose_ends_its_hold_in_estop(folder: Path) -> None:
    loop = Loop(Runtime(altered(folder, joints__default=None)))
    loop.run(30)
    loop.asking = False
    loop.until(Mode.HOLD, 20)
    loop.until(Mode.ESTOP, 40)
    assert Mode.RAMP not in [command.mode for command in loop.commands]


def test_a_ramp_that_loses_the_joints_stops(loop: Loop) -> None:
    loop.asking = False
    loop.until(Mode.RAMP, 60)
    loop.measuring = False
    assert loop.until(Mode.ESTOP, 5) == 4
    assert loop.largest_step <= 2.0 * 0.02


@pytest.mark.parametrize("estop", ["hold", "cut"])
def test_the_emergency_stop_takes_one_tick(folder: Path, estop: str) -> None:
    loop = Loop(Runtime(folder, estop=estop))
    loop.run(40)
    loop.runtime.estop()
    command = loop.tick()
    assert command.mode == Mode.ESTOP
    assert Fault.STOPPED in command.latched
    assert (Flag.EFFORT_CUT in command.flags) == (estop == "cut")
    assert (np.abs(command.effort).max() == 0) == (estop == "cut")
    assert loop.run(100).mode == Mode.ESTOP
    assert loop.largest_step <= 2.0 * 0.02


def test_after_a_cut_the_robot_is_taken_where_it_fell(folder: Path) -> None:
    loop = Loop(Runtime(folder, estop="cut"))
    loop.run(40)
    loop.runtime.estop()
    loop.run(5)
    loop.position = np.array([-0.9, -0.9])
    loop.runtime.reset()
    loop.asking = False
    command = loop.tick()
    assert command.mode == Mode.WAIT
    assert Flag.ENABLED not in command.flags
    np.testing.assert_array_equal(command.target, loop.position)


@pytest.mark.parametrize("stitching", ["replace", "ensemble", "cross_fade"])
@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.1, 0.2, 0.3])
def test_no_delay_makes_a_jump_at_a_chunk_boundary(tmp_path: Path, stitching: str, delay_s: float) -> None:
    robot = Robot(chunk=40, execute=10, gain=3.0)
    runtime = Runtime(write_bundle(tmp_path / "b", robot), stitching=stitching, simulated_latency_s=delay_s)
    loop, rng = Loop(runtime), np.random.default_rng(0)
    loop.observation = lambda: rng.normal(0, 3, 5)
    loop.run(400)
    assert Mode.RUN in {command.mode for command in loop.commands}
    assert {c.mode for c in loop.commands} <= {Mode.WAIT, Mode.RUN}
    assert loop.largest_step <= 2.0 * 0.02
    # What is played is what is due: actions are indexed by the observation's time, so the delay is in the index.
    fresh = [c for c in loop.commands if Flag.NEW_CHUNK in c.flags]
    assert all(c.index == pytest.approx((c.now_ns - c.chunk_stamp_ns) * 50e-9, abs=1e-9) for c in fresh)
    assert min(c.index for c in fresh) >= delay_s * 50 - 1e-6


def test_a_cold_first_call_is_waited_for(tmp_path: Path) -> None:
    """A latency longer than a chunk: every chunk is over when it comes, and the robot never starts."""
    loop = Loop(Runtime(write_bundle(tmp_path / "b"), simulated_latency_s=0.5))
    assert loop.run(200).mode == Mode.WAIT
    assert loop.steps == []
    assert any(Flag.OVER_BUDGET in c.flags for c in loop.commands)


def test_limits_can_be_tightened_but_not_loosened(folder: Path) -> None:
    runtime = Runtime(folder)
    runtime.tighten(velocity=np.array([0.5, 99.0]))
    np.testing.assert_array_equal(runtime.limits.velocity, [0.5, 2.0])
    np.testing.assert_array_equal(runtime.limits.high, [1.0, 1.0])
    loop = Loop(runtime)
    loop.run(200)
    steps = np.abs(loop.steps)
    assert steps[:, 0].max() <= 0.5 * 0.02
    assert loop.commands[-1].clamp_count > 0


def test_a_bundle_without_velocity_limits_says_so(folder: Path) -> None:
    runtime = Runtime(altered(folder, joints__velocity=[None, 2.0]))
    assert runtime.notes == [
        "'joint_0' has no velocity limit in the bundle: its commands are not bounded in that respect"
    ]


@pytest.mark.parametrize("meaning", ["joint_velocity", "joint_effort", "cartesian", "normalised"])
def test_efforts_velocities_changes_and_numbers_come_to_rest(tmp_path: Path, meaning: str) -> None:
    with_joints = meaning.startswith("joint")
    overrides = {} if with_joints else {"joints": None, "action.velocity": [2.0, 2.0]}
    runtime = Runtime(write_bundle(tmp_path / "b", Robot(meaning=meaning, overrides=overrides)))
    loop = Loop(runtime)
    loop.measuring, loop.measured = with_joints, np.zeros(2)
    assert loop.run(60).mode == Mode.RUN
    loop.asking = False
    loop.run(60)
    held = [c for c in loop.commands if c.mode == Mode.HOLD]
    # An effort holds the joint where the hold began, which is where it is: no effort either.
    np.testing.assert_array_equal(held[-1].target, 0)
    assert np.abs(loop.commands[50].target).max() > 0


def test_a_cartesian_command_stays_in_its_workspace(tmp_path: Path) -> None:
    robot = Robot(meaning="cartesian", gain=1.0, overrides={"joints": None, "action.velocity": [1.0, 1.0]})
    runtime = Runtime(write_bundle(tmp_path / "b", robot))
    runtime.set_workspace(np.zeros(2), np.full(2, -0.05), np.full(2, 0.05))
    loop, pose = Loop(runtime), np.zeros(2)
    loop.measuring = False
    for _ in range(200):
        change = loop.tick().target
        assert np.abs(change).max() <= 1.0 * 0.02
        pose = pose + change
        assert np.abs(pose).max() <= 0.05 + 1e-9
    assert np.abs(pose).max() > 0.04, "the policy pushes against the box"
    assert Clamp.POSITION in loop.commands[-1].clamped
