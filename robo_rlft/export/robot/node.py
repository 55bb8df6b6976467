"""The policy's node on DDS alone: `python -m robo_rlft.export.robot.node BUNDLE`. Needs no ROS, imports no torch.

It reads the robot's topics, answers with commands, tells its state on /diagnostics once a second, and obeys
`/policy/emergency_stop` and `/policy/reset`. Ctrl-C or SIGTERM ends it; the robot then hears nothing more.
"""

from __future__ import annotations

import argparse
import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence

from robo_rlft.errors import UserError
from robo_rlft.export.robot.control import RUNTIMES, load_runtime
from robo_rlft.export.robot.core import PolicyCore
from robo_rlft.export.robot.dds import COMMAND, LATCHED, Participant, Quality
from robo_rlft.export.robot.observation import Source
from robo_rlft.export.robot.topics import Topics
from robo_rlft.rosmsg.known import BOOL, DIAGNOSTICS, FLOAT64_ARRAY, IMU, JOINT_STATE, TRAJECTORY, TWIST
from robo_rlft.rosmsg.labels import NS

DIAGNOSTICS_S = 1.0
"""Time between two reports."""


class PolicyNode:
    """A core on a bus.

    Args:
        core: the policy.
        bus: where the topics are.
        topics: their names.
        with_trajectory: also send each command as a trajectory, where the action is joint positions.
    """

    def __init__(
        self, core: PolicyCore, bus: Participant, topics: Topics | None = None, with_trajectory: bool = False
    ) -> None:
        self.core, self._bus, names = core, bus, topics or Topics()
        self._commands = bus.publisher(names.commands, FLOAT64_ARRAY, COMMAND)
        along = with_trajectory and core.description.commands_positions
        self._trajectory = bus.publisher(names.trajectory, TRAJECTORY, COMMAND) if along else None
        self._diagnostics = bus.publisher(names.diagnostics, DIAGNOSTICS, Quality())
        self._seen = bus.publisher(names.seen, FLOAT64_ARRAY, Quality())
        self._done = bus.publisher(names.done, FLOAT64_ARRAY, Quality())
        self._reported_ns = 0
        self._subscribe(names)

    def spin(self, going: Callable[[], bool]) -> None:
        """Work as long as `going` says so."""
        while going():
            self.once()

    def once(self) -> None:
        """Wait for news or for the time of a tick, and do what is due."""
        self._bus.spin(self.core.wait_s(time.time_ns()))
        now = time.time_ns()
        if self.core.due(now):
            self._tick(now)
        if now - self._reported_ns > DIAGNOSTICS_S * NS:
            self.report()

    def report(self) -> None:
        """Tell the state on /diagnostics."""
        self._reported_ns = time.time_ns()
        self._diagnostics.send(self.core.diagnostics(self._reported_ns))

    def _tick(self, now_ns: int) -> None:
        if (out := self.core.tick(now_ns)) is None:
            return
        self._commands.send(out.array)
        if self._trajectory is not None and out.trajectory is not None:
            self._trajectory.send(out.trajectory)
        self.core.sent(time.time_ns())
        if self._done.matched:
            self._done.send(out.done)
        if out.seen is not None and self._seen.matched:
            self._seen.send(out.seen)

    def _subscribe(self, names: Topics) -> None:
        core, bus = self.core, self._bus
        now = time.time_ns
        bus.subscribe(names.joint_states, JOINT_STATE, lambda m, _: core.on_joint_state(m, now()))
        if Source.IMU in core.builder.sources:
            bus.subscribe(names.imu, IMU, lambda m, _: core.on_imu(m, now()))
        if Source.ARRAY in core.builder.sources:
            bus.subscribe(names.observation, FLOAT64_ARRAY, lambda m, sent: core.on_observation(m, sent, now()))
        if Source.COMMAND in core.builder.sources:
            bus.subscribe(names.command_velocity, TWIST, lambda m, _: core.on_command_velocity(m, now()))
        bus.subscribe(names.stop, BOOL, lambda m, sent: core.stop(sent) if m.data else None, LATCHED)
        bus.subscribe(names.reset, BOOL, lambda m, sent: core.reset(sent) if m.data else None, Quality())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal; the exit status."""
    given = _parser().parse_args(arguments)
    try:
        runtime = load_runtime(given.runtime, given.bundle, given.seed, given.threads)
        core = PolicyCore(runtime.description, runtime)
        with Participant() as bus:
            node = PolicyNode(core, bus, with_trajectory=given.trajectory)
            _be_urgent(given.priority)
            print(f"policy of {core.description.env_id} at {core.description.rate_hz:g} Hz", flush=True)
            node.spin(_until_signal(given.until_eof))
            node.report()
    except UserError as error:
        print(f"robo-rlft: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m robo_rlft.export.robot.node", description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--seed", type=int, default=0, help="of the policy's noise")
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference")
    parser.add_argument("--runtime", choices=RUNTIMES, default="python", help="what runs the bundle")
    parser.add_argument("--trajectory", action="store_true", help="also send trajectory_msgs/JointTrajectory")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does: with its parent")
    parser.add_argument("--priority", type=int, default=0, help="SCHED_FIFO priority, 1 to 99; 0 keeps the ordinary")
    return parser


def _until_signal(until_eof: bool) -> Callable[[], bool]:
    ended: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: ended.append(got))
    # Nothing is ever written to it: what can be read is its end, that of the process that holds the other side.
    return lambda: not ended and not (until_eof and select.select([sys.stdin], [], [], 0)[0])


def _be_urgent(priority: int) -> None:
    """Real-time scheduling where it is allowed; where it is not, say so and go on."""
    gc.freeze()
    if not priority:
        return
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (PermissionError, ValueError, OSError) as error:
        print(f"no real-time priority {priority} ({error}): the node runs with the ordinary one", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
