"""The simulated robot on the bus: sensors and commands are topics; in real time, or in step with its controller."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from robo_rlft.errors import RunError, SpecError
from robo_rlft.export.robot.dds import COMMAND, Participant, Publisher, Quality
from robo_rlft.export.robot.faults import Faults, Link
from robo_rlft.export.robot.messages import imu, twist
from robo_rlft.export.robot.simulated import SimulatedRobot
from robo_rlft.export.robot.topics import Topics, joint_state
from robo_rlft.rosmsg.cdr import Message, blank
from robo_rlft.rosmsg.known import BOOL, DIAGNOSTICS, FLOAT64_ARRAY, IMU, JOINT_STATE, KNOWN, TRAJECTORY, TWIST
from robo_rlft.rosmsg.labels import array_entries, array_stamp, labelled_array, named, ordered, stamp_of

Record = Callable[[str, str, Any, int], None]
"""(topic, kind, message, time in ns) -> None"""
SETTLE_S = 0.1
"""From telling the controller to begin anew to the first sensors."""
ANSWER_S = 0.5
"""Longest wait for an answer in step with the controller."""


@dataclass
class Episode:
    """What happened in one episode.

    Attributes:
        seed: of the episode.
        steps: control steps made.
        ret: sum of rewards.
        success: the task's own.
        finished: the task ended it, not whoever cut it short.
        round_trip_s: from reading the sensors to the arrival of the command that answers them, of each answer.
        last_ns: stamp of the last observation that was answered.
        late_steps: control steps without a new command.
        overruns: control steps that began more than half a period late, because this machine was busy.
        largest_move: of each command entry between two control steps.
        states: states to draw a video from.
    """

    seed: int
    steps: int = 0
    ret: float = 0.0
    success: bool = False
    finished: bool = False
    round_trip_s: list[float] = field(default_factory=list)
    last_ns: int = 0
    late_steps: int = 0
    overruns: int = 0
    largest_move: np.ndarray = field(default_factory=lambda: np.zeros(0))
    states: list[Mapping[str, np.ndarray]] = field(default_factory=list)


@dataclass(frozen=True)
class _Answer:
    """A command that arrived: entries by name, and the stamp of the observation it answers."""

    entries: Mapping[str, float]
    stamp_ns: int


class RobotNode:
    """A simulated robot that talks.

    Args:
        robot: what is simulated.
        bus: where the topics are.
        faults: of every message, both ways.
        in_step: wait for each answer instead of for the clock.
        topics: names.
        record: gets every message that leaves or arrives.
        film_every: keep the state of every so manieth step; 0 keeps none.
        seed: of the faults.

    Attributes:
        refused: commands that were not taken, by reason.
        told_by_policy: the newest values of the policy's diagnostics.
    """

    def __init__(
        self,
        robot: SimulatedRobot,
        bus: Participant,
        faults: Faults | None = None,
        *,
        in_step: bool = False,
        topics: Topics | None = None,
        record: Record | None = None,
        film_every: int = 0,
        seed: int = 0,
    ) -> None:
        self.robot, self._bus, self.topics = robot, bus, topics or Topics()
        self._in_step, self._record, self._film_every = in_step, record, film_every
        generators = [np.random.default_rng([seed, way]) for way in range(2)]
        given = faults or Faults()
        self.sensors = Link[tuple[str, str, Message]](given, generators[0], robot.period_s)
        self.commands = Link[_Answer](given, generators[1], robot.period_s)
        self.refused = Counter[str]()
        self._publishers = self._offer()
        self._reset = bus.publisher(self.topics.reset, BOOL, Quality())
        bus.subscribe(self.topics.commands, FLOAT64_ARRAY, self._on_array, COMMAND)
        bus.subscribe(self.topics.trajectory, TRAJECTORY, self._on_trajectory, COMMAND)
        if record is not None:
            self._overhear_all()
        bus.subscribe(self.topics.diagnostics, DIAGNOSTICS, self._on_diagnostics, Quality())
        self.told_by_policy: Mapping[str, str] = {}
        self._began_ns = 0

    def wait_for_controller(self, timeout_s: float) -> None:
        """Wait until somebody reads the sensors and listens to resets.

        Raises:
            RunError: nobody does.
        """
        first = self._publishers[self.topics.joint_states]
        if not self._bus.wait_for(lambda: first.matched > 0 and self._reset.matched > 0, timeout_s):
            raise RunError(
                f"no controller reads {self.topics.joint_states} within {timeout_s:g} s: is it started, with the same "
                "ROS_DOMAIN_ID?"
            )

    def episode(self, seed: int, going: Callable[[], bool] = lambda: True) -> Episode:
        """Play one episode to its end, or as long as `going` says so."""
        self._begin(seed)
        result, due = Episode(seed), time.monotonic()
        while not self.robot.done and going():
            self._tell()
            due = self._wait(due, result)
            self._move(result)
        result.last_ns = self._newest.stamp_ns if self._newest else 0
        result.finished = self.robot.done
        result.steps, result.ret, result.success = self.robot.steps, self.robot.total, self.robot.success
        return result

    def _begin(self, seed: int) -> None:
        self.robot.reset(seed)
        self._send_reset()
        settled = time.monotonic() + SETTLE_S
        while time.monotonic() < settled:
            self._bus.spin(0.01)
        self.sensors.clear()
        self.commands.clear()
        self._began_ns = time.time_ns()
        self._told_ns: dict[int, float] = {}
        self._newest: _Answer | None = None
        self._used: Mapping[str, float] = self.robot.resting()
        self._fresh = False

    def _send_reset(self) -> None:
        message = blank(BOOL, KNOWN)
        message.data = True
        self._reset.send(message)
        self._note(self.topics.reset, BOOL, message)

    def _tell(self) -> None:
        """Read the sensors and send them off; the joints come last, as the sign that all is told."""
        sensors, stamp, now = self.robot.sensors(), time.time_ns(), time.monotonic()
        self._told_ns[stamp], self._stamp = now, stamp
        names = self.topics
        if sensors.steering is not None:
            self._put(names.command_velocity, TWIST, twist(sensors.steering), now)
        if sensors.imu is not None:
            self._put(names.imu, IMU, imu(sensors.imu, stamp), now)
        if self.robot.told:
            self._put(names.observation, FLOAT64_ARRAY, labelled_array(self.robot.told, sensors.told, stamp), now)
        joints = joint_state(self.robot.joints, sensors.position, sensors.velocity, sensors.effort, stamp)
        self._put(names.joint_states, JOINT_STATE, joints, now)

    def _put(self, topic: str, kind: str, message: Message, now_s: float) -> None:
        self._note(topic, kind, message)
        self.sensors.send((topic, kind, message), now_s)

    def _wait(self, began: float, result: Episode) -> float:
        """Let messages pass until the step is over; the time at which the next one begins."""
        end = time.monotonic() + ANSWER_S if self._in_step else began + self.robot.period_s
        self._fresh = False
        while True:  # once at least, or a robot that is late would hear nothing at all
            self._deliver(time.monotonic())
            self._bus.spin(max(min(end, self.sensors.next_s, self.commands.next_s) - time.monotonic(), 0.0))
            self._arrive(time.monotonic(), result)
            if time.monotonic() >= end or (self._in_step and self._answered()):
                break
        late = time.monotonic() - end
        if self._in_step or late < self.robot.period_s / 2:
            return end
        result.overruns += 1
        return end + late

    def _answered(self) -> bool:
        return self._newest is not None and self._newest.stamp_ns >= self._stamp

    def _deliver(self, now_s: float) -> None:
        for topic, _, message in self.sensors.due(now_s):
            self._publishers[topic].send(message)

    def _arrive(self, now_s: float, result: Episode) -> None:
        """Commands come into force in the order of what they answer; one of an earlier episode never does."""
        for answer in self.commands.due(now_s):
            newest = self._newest.stamp_ns if self._newest else self._began_ns
            if answer.stamp_ns < newest:
                self.refused["out of order"] += 1
                continue
            self._newest, self._fresh = answer, True
            if answer.stamp_ns in self._told_ns:
                result.round_trip_s.append(now_s - self._told_ns.pop(answer.stamp_ns))

    def _move(self, result: Episode) -> None:
        if self._film_every and self.robot.steps % self._film_every == 0:
            result.states.append(self.robot.env.get_state())
        result.late_steps += int(not self._fresh)
        before = np.array(list(self._used.values()))
        if self._newest is not None:
            self._used = {name: self._newest.entries[name] for name in self.robot.commands}
        moved = np.abs(np.array(list(self._used.values())) - before)
        result.largest_move = np.maximum(result.largest_move, moved) if len(result.largest_move) else moved * 0
        self.robot.step(self._used)

    def _on_array(self, message: Any, sent_ns: int) -> None:
        self._note(self.topics.commands, FLOAT64_ARRAY, message)
        stamp = array_stamp(message)
        self._accept(lambda: array_entries(message), sent_ns if stamp is None else stamp)

    def _on_trajectory(self, message: Any, sent_ns: int) -> None:
        self._note(self.topics.trajectory, TRAJECTORY, message)
        if message.points:
            last = message.points[-1].positions
            self._accept(lambda: named(message.joint_names, last, "trajectory"), stamp_of(message) or sent_ns)

    def _accept(self, read: Callable[[], Mapping[str, float]], stamp_ns: int) -> None:
        try:
            entries = read()
            ordered(entries, self.robot.commands, "the command")
        except SpecError as error:
            self.refused[str(error)] += 1
            return
        self.commands.send(_Answer(entries, stamp_ns), time.monotonic())

    def _overhear_all(self) -> None:
        """What the policy tells beside its commands belongs into a recording."""
        names = self.topics
        for topic, kind in {names.seen: FLOAT64_ARRAY, names.done: FLOAT64_ARRAY}.items():
            self._bus.subscribe(topic, kind, partial(self._overhear, topic, kind), Quality())

    def _overhear(self, topic: str, kind: str, message: Any, _: int) -> None:
        self._note(topic, kind, message)

    def _on_diagnostics(self, message: Any, _: int) -> None:
        self._note(self.topics.diagnostics, DIAGNOSTICS, message)
        self.told_by_policy = {pair.key: pair.value for status in message.status for pair in status.values}

    def _note(self, topic: str, kind: str, message: Any) -> None:
        if self._record is not None:
            self._record(topic, kind, message, time.time_ns())

    def _offer(self) -> dict[str, Publisher]:
        names = self.topics
        kinds = {names.joint_states: JOINT_STATE}
        if self.robot.floating:
            kinds[names.imu] = IMU
        if self.robot.told:
            kinds[names.observation] = FLOAT64_ARRAY
        if self.robot.steered:
            kinds[names.command_velocity] = TWIST
        return {topic: self._bus.publisher(topic, kind, COMMAND) for topic, kind in kinds.items()}
