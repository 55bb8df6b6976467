"""The policy's node without a middleware: messages in, messages out. Both nodes are thin adapters of this one.

A message is anything with the fields of its type, an object of rclpy or ours. Everything is matched by name; what does
not fit is refused as a whole, counted, and named in the diagnostics, while what was known before stays and grows old.
A tick is due as soon as all the topics the policy reads have told something new, and in any case after one and a half
periods, so that a robot that falls silent is held. Imports no torch.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from robo_rlft.errors import SpecError
from robo_rlft.export.robot.control import Command, Mode, Runtime
from robo_rlft.export.robot.description import Description
from robo_rlft.export.robot.observation import ObservationBuilder, Readings, Source, gravity_of
from robo_rlft.export.robot.topics import trajectory
from robo_rlft.rosmsg.cdr import Message, blank
from robo_rlft.rosmsg.known import DIAGNOSTICS, KNOWN
from robo_rlft.rosmsg.labels import NS, array_entries, array_stamp, labelled_array, named, ordered, set_time, stamp_of

LATE = 1.5
"""Periods without a full set of news after which a tick is due all the same."""
CLOCK_AHEAD_S = 0.05
"""A stamp further in the future than this means that two clocks disagree."""
COMMAND_TIMEOUT_S = 0.5
"""An asked-for velocity that nobody repeats for so long becomes zero."""
_WINDOW = 4096
_LEVELS = {Mode.WAIT: 1, Mode.RAMP: 0, Mode.RUN: 0, Mode.HOLD: 1, Mode.STOP: 2}


@dataclass(frozen=True)
class Outgoing:
    """What a tick sends.

    Attributes:
        command: what was decided.
        array: as std_msgs/Float64MultiArray.
        trajectory: as trajectory_msgs/JointTrajectory; None where the action is no joint position.
        done: the executed action, in the policy's units, as std_msgs/Float64MultiArray.
        seen: the observation, as std_msgs/Float64MultiArray; None where this tick had no new one.
    """

    command: Command
    array: Message
    trajectory: Message | None
    done: Message
    seen: Message | None


class PolicyCore:
    """One policy that reads one robot's topics.

    Args:
        description: of the bundle.
        runtime: the bundle.
        name: of the node, for diagnostics.
    """

    def __init__(self, description: Description, runtime: Runtime, name: str = "policy") -> None:
        self.description, self.runtime, self.name = description, runtime, name
        self.builder = ObservationBuilder(description)
        self.period_ns = round(NS / description.rate_hz)
        self.refused, self.flags = Counter[str](), Counter[str]()
        self.modes = Counter[Mode]()
        self.answer_s: deque[float] = deque(maxlen=_WINDOW)
        self._needed = self.builder.sources & {Source.JOINTS, Source.IMU, Source.ARRAY}
        if description.commands_positions:
            self._needed |= {Source.JOINTS}
        self._steered_ns = self._stopped_ns = 0
        self._readings, self._last_refusal = Readings(), ""
        self.reset()

    def reset(self, sent_ns: int = 0) -> None:
        """Begin anew: a stop is lifted, history and commands are forgotten. Counters stay.

        Topics keep no order among each other: a reset that was sent before the last stop does not lift it, and what
        sensors told before the reset is forgotten even if it arrives later.

        Args:
            sent_ns: when it was sent.
        """
        if sent_ns and sent_ns <= self._stopped_ns:
            self._refuse("reset", "a reset was sent before the last emergency stop: send it again")
            return
        self.runtime.reset()
        self._stopped_ns, self._reset_ns = 0, sent_ns
        self.builder.reset()
        self._readings = Readings(command=self._readings.command)
        self._stamps: dict[Source, int] = {}
        self._news: set[Source] = set()
        self._observed_ns = self._ticked_ns = 0
        self._mode, self._last_refusal = Mode.WAIT, ""

    def stop(self, sent_ns: int = 0) -> None:
        """The emergency stop, sent at this time: latched until `reset`."""
        self._stopped_ns = max(sent_ns, self._stopped_ns)
        self.runtime.estop()

    def on_joint_state(self, message: Any, now_ns: int) -> None:
        """A sensor_msgs/JointState: joints by name; others than the policy's are welcome and left out."""
        self._take(Source.JOINTS, stamp_of(message), now_ns, lambda: self._joints(message))

    def on_imu(self, message: Any, now_ns: int) -> None:
        """A sensor_msgs/Imu in the frame of the base."""
        self._take(Source.IMU, stamp_of(message), now_ns, lambda: self._imu(message))

    def on_observation(self, message: Any, sent_ns: int, now_ns: int) -> None:
        """A labelled std_msgs/Float64MultiArray; `sent_ns` is its time where it says none itself."""
        stamp = array_stamp(message)
        self._take(Source.ARRAY, sent_ns if stamp is None else stamp, now_ns, lambda: self._told(message))

    def on_command_velocity(self, message: Any, now_ns: int) -> None:
        """A geometry_msgs/Twist: what the robot is asked to do."""
        asked = (message.linear.x, message.linear.y, message.angular.z)
        if not np.isfinite(asked).all():
            self._refuse("command_velocity", f"the asked-for velocity is {asked}")
            return
        self._readings.command, self._steered_ns = asked, now_ns

    def due(self, now_ns: int) -> bool:
        """Whether it is time for `tick`."""
        return self._needed <= self._news or now_ns - self._ticked_ns > LATE * self.period_ns

    def wait_s(self, now_ns: int) -> float:
        """How long nothing has to be done if no message comes."""
        return max(LATE * self.period_ns - (now_ns - self._ticked_ns), 0.0) / NS

    def tick(self, now_ns: int) -> Outgoing | None:
        """Give what is new to the bundle and take its command; None before there is one."""
        self._ticked_ns = now_ns
        if (now_ns - self._steered_ns) > COMMAND_TIMEOUT_S * NS:
            self._readings.command = (0.0, 0.0, 0.0)
        seen = self._observe() if self._needed <= self._news else None
        command = self.runtime.tick(now_ns)
        self.modes[command.mode] += 1
        self.flags.update(command.flags)
        self._mode = command.mode
        # Whatever runs the bundle: what is no number is never sent.
        return self._outgoing(command, seen) if np.isfinite(command.target).all() else None

    def sent(self, now_ns: int) -> None:
        """The command of this tick has left; notes how old the observation behind it is."""
        if self._observed_ns and self._mode in (Mode.RUN, Mode.RAMP):
            self.answer_s.append((now_ns - self._observed_ns) / NS)

    def diagnostics(self, now_ns: int) -> Message:
        """A diagnostic_msgs/DiagnosticArray: the mode, counters of all that was limited or refused, response times."""
        status = blank("diagnostic_msgs/msg/DiagnosticStatus", KNOWN)
        status.level, status.name, status.hardware_id = _LEVELS[self._mode], self.name, self.description.env_id
        status.message = self._mode.name + (f"; last refused: {self._last_refusal}" if self._last_refusal else "")
        status.values = [Message(key=key, value=value) for key, value in self.report().items()]
        message = blank(DIAGNOSTICS, KNOWN)
        set_time(message.header.stamp, now_ns)
        message.status = [status]
        return message

    def report(self) -> dict[str, str]:
        """Counters and response times as text."""
        times = np.sort(self.answer_s) * 1e3 if self.answer_s else np.array([np.nan])
        at = {name: times[min(int(share * len(times)), len(times) - 1)] for name, share in _SHARES.items()}
        return {
            **{f"ticks in mode {mode.name}": str(self.modes[mode]) for mode in Mode},
            **{f"flag {name}": str(count) for name, count in sorted(self.flags.items())},
            **{f"refused {name}": str(count) for name, count in sorted(self.refused.items())},
            **{f"sensor to command, {name}, ms": f"{value:.3f}" for name, value in at.items()},
        }

    def _take(self, source: Source, stamp_ns: int, now_ns: int, read: Callable[[], None]) -> None:
        """Read a message that is neither older than the last one nor from the future."""
        if stamp_ns - now_ns > CLOCK_AHEAD_S * NS:
            self._refuse(source, f"{source} is {(stamp_ns - now_ns) / NS:.3f} s ahead of this clock: synchronise both")
        elif stamp_ns <= max(self._stamps.get(source, -1), self._reset_ns):
            self._refuse(source, f"{source} came out of order")
        else:
            try:
                read()
            except (SpecError, ValueError) as error:
                self._refuse(source, str(error))
                return
            self._stamps[source] = stamp_ns
            self._news.add(source)

    def _joints(self, message: Any) -> None:
        position = named(message.name, message.position, "joint_states: position")
        velocity = named(message.name, message.velocity, "joint_states: velocity") if len(message.velocity) else {}
        joints = self.description.joints
        wanted = tuple(dict.fromkeys((*self.builder.joints, *(joints.names if joints else ()))))
        q = ordered(position, wanted, "joint_states: position")
        dq = ordered(velocity, self.builder.joints, "joint_states: velocity") if self.builder.joints else q
        self._readings.position = dict(zip(wanted, q, strict=True))
        self._readings.velocity = dict(zip(self.builder.joints, dq, strict=False))
        if joints is not None:
            rates = np.array([velocity.get(name, 0.0) for name in joints.names])
            self.runtime.joint_state(
                stamp_of(message), np.array([self._readings.position[n] for n in joints.names]), rates
            )

    def _imu(self, message: Any) -> None:
        q, w = message.orientation, message.angular_velocity
        numbers = np.array([q.x, q.y, q.z, q.w, w.x, w.y, w.z])
        if not np.isfinite(numbers).all():
            raise SpecError("imu holds numbers that are not finite")
        self._readings.gravity = tuple(gravity_of(*numbers[:4]))
        self._readings.ang_vel = tuple(numbers[4:])

    def _told(self, message: Any) -> None:
        values = ordered(array_entries(message), self.builder.told, "observation")
        self._readings.told = dict(zip(self.builder.told, values, strict=True))

    def _observe(self) -> Message | None:
        """All topics have news: one observation, as old as the oldest of them."""
        self._news.clear()
        self._readings.action = tuple(self.runtime.last_action)
        self._observed_ns = min((self._stamps[source] for source in self._needed), default=0)
        try:
            rows = self.builder.rows(self._readings)
            self.runtime.observe(self._observed_ns, rows)
        except (KeyError, SpecError) as error:
            self._refuse("observation", str(error))
            return None
        return labelled_array(self.builder.names, np.concatenate(list(rows.values())), self._observed_ns)

    def _refuse(self, what: str, why: str) -> None:
        self.refused[what] += 1
        self._last_refusal = why

    def _outgoing(self, command: Command, seen: Message | None) -> Outgoing:
        action, target, stamp = self.description.action, command.target, self._observed_ns
        along = self.description.commands_positions
        return Outgoing(
            command,
            labelled_array(action.names, target, stamp),
            trajectory(action.names, target, stamp, self.period_ns) if along else None,
            labelled_array(action.names, action.action(target), stamp),
            seen,
        )


_SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
