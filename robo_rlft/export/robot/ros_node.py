"""The policy's node as a lifecycle node of ROS 2.

    python -m robo_rlft.export.robot.ros_node --ros-args -p bundle:=BUNDLE -p autostart:=true

The same core, topics and diagnostics as the node on DDS alone (`node`), with what only ROS 2 offers: parameters, the
states unconfigured, inactive and active, and the services `~/emergency_stop` and `~/reset` (std_srvs/Trigger). Needs
rclpy and the message packages of a ROS 2 installation; imports no torch.
"""

# pyright: reportMissingImports=false
# rclpy and the messages come with ROS 2, not from the registry of Python packages.

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robo_rlft.errors import UserError
from robo_rlft.export.robot.control import load_runtime
from robo_rlft.export.robot.core import PolicyCore
from robo_rlft.export.robot.observation import Source
from robo_rlft.export.robot.ros_messages import as_ros
from robo_rlft.export.robot.topics import Topics
from robo_rlft.rosmsg.labels import NS

_SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
_COMMAND = QoSProfile(depth=1)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_DIAGNOSTICS_S = 1.0
_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_PARAMETERS: dict[str, Any] = {
    "bundle": "",
    "runtime": "python",
    "seed": 0,
    "threads": 1,
    "trajectory": False,
    "autostart": False,
}
"""Names and defaults: the bundle's folder, what runs it (`python` or `native`), the seed of its noise, threads of an
inference, whether trajectories are sent too, whether the node activates itself. Each topic's name is a parameter
`topics.<name>` as well."""


class RosPolicyNode(LifecycleNode):
    """The core on ROS 2. Commands leave only while it is active; entering that state begins anew."""

    def __init__(self) -> None:
        super().__init__("policy")
        for name, value in _PARAMETERS.items():
            self.declare_parameter(name, value)
        topics = {name: self.declare_parameter(f"topics.{name}", value).value for name, value in vars(Topics()).items()}
        self._topics = Topics(**topics)
        self.core: PolicyCore | None = None
        self._active = False
        self._made: list[Callable[[], Any]] = []

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and verify the bundle, offer and read the topics; fails with one sentence in the log."""
        given = {name: self.get_parameter(name).value for name in _PARAMETERS}
        try:
            runtime = load_runtime(given["runtime"], given["bundle"], given["seed"], given["threads"])
            self.core = PolicyCore(runtime.description, runtime, self.get_name())
        except UserError as error:
            self.get_logger().error(str(error))
            return _FAILURE
        self._offer(self.core, given["trajectory"])
        self._read(self.core)
        self.get_logger().info(f"policy of {runtime.description.env_id} at {runtime.description.rate_hz:g} Hz")
        return _SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin anew, and send commands from now on."""
        assert self.core is not None
        self.core.reset(time.time_ns())
        self._active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send no more commands: the robot's own controller decides what that means."""
        self._active = False
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the bundle."""
        self._clear()
        return _SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End."""
        self._clear()
        return _SUCCESS

    def _clear(self) -> None:
        self._active, self.core = False, None
        for destroy in self._made:
            destroy()
        self._made.clear()

    def _offer(self, core: PolicyCore, with_trajectory: bool) -> None:
        names = self._topics
        self._commands = self._publisher(Float64MultiArray, names.commands, _COMMAND)
        along = with_trajectory and core.description.commands_positions
        self._trajectory = self._publisher(JointTrajectory, names.trajectory, _COMMAND) if along else None
        self._seen = self._publisher(Float64MultiArray, names.seen, QoSProfile(depth=10))
        self._done = self._publisher(Float64MultiArray, names.done, QoSProfile(depth=10))
        self._diagnostics = self._publisher(DiagnosticArray, names.diagnostics, QoSProfile(depth=10))
        for name, call in (("emergency_stop", self._on_stop), ("reset", self._on_reset)):
            service = self.create_service(Trigger, f"~/{name}", call)
            self._made.append(lambda s=service: self.destroy_service(s))
        for period, call in ((core.period_ns / NS / 2, self._watch), (_DIAGNOSTICS_S, self._report)):
            timer = self.create_timer(period, call)
            self._made.append(lambda t=timer: self.destroy_timer(t))

    def _read(self, core: PolicyCore) -> None:
        names, now, sources = self._topics, time.time_ns, core.builder.sources
        self._subscribe(JointState, names.joint_states, lambda m, _: core.on_joint_state(m, now()), _SENSOR)
        if Source.IMU in sources:
            self._subscribe(Imu, names.imu, lambda m, _: core.on_imu(m, now()), _SENSOR)
        if Source.ARRAY in sources:
            told = lambda m, sent: core.on_observation(m, sent, now())  # noqa: E731
            self._subscribe(Float64MultiArray, names.observation, told, _SENSOR)
        if Source.COMMAND in sources:
            steer = lambda m, _: core.on_command_velocity(m, now())  # noqa: E731
            self._subscribe(Twist, names.command_velocity, steer, _SENSOR)
        self._subscribe(Bool, names.stop, lambda m, sent: core.stop(sent) if m.data else None, _LATCHED)
        self._subscribe(Bool, names.reset, lambda m, sent: core.reset(sent) if m.data else None, QoSProfile(depth=10))

    def _publisher(self, kind: Any, topic: str, quality: QoSProfile) -> Any:
        # Not a lifecycle publisher: diagnostics must be heard in every state, and `_active` guards the commands.
        made = self.create_publisher(kind, topic, quality)
        self._made.append(lambda: self.destroy_publisher(made))
        return made

    def _subscribe(self, kind: Any, topic: str, call: Callable[[Any, int], object], quality: QoSProfile) -> None:
        """Have `call` get each message and the time at which it was sent; then do what is due."""

        def received(message: Any, info: dict[str, Any]) -> None:
            call(message, int(info["source_timestamp"]))
            self._watch()

        made = self.create_subscription(kind, topic, received, quality)
        self._made.append(lambda: self.destroy_subscription(made))

    def _watch(self) -> None:
        now = time.time_ns()
        if self.core is None or not self._active or not self.core.due(now):
            return
        if (out := self.core.tick(now)) is None:
            return
        self._commands.publish(as_ros(Float64MultiArray, out.array))
        if self._trajectory is not None and out.trajectory is not None:
            self._trajectory.publish(as_ros(JointTrajectory, out.trajectory))
        self.core.sent(time.time_ns())
        if self._done.get_subscription_count():
            self._done.publish(as_ros(Float64MultiArray, out.done))
        if out.seen is not None and self._seen.get_subscription_count():
            self._seen.publish(as_ros(Float64MultiArray, out.seen))

    def _report(self) -> None:
        if self.core is not None:
            self._diagnostics.publish(as_ros(DiagnosticArray, self.core.diagnostics(time.time_ns())))

    def _on_stop(self, _: Any, answer: Any) -> Any:
        assert self.core is not None
        self.core.stop(time.time_ns())
        answer.success, answer.message = True, "stopped until a reset"
        return answer

    def _on_reset(self, _: Any, answer: Any) -> Any:
        assert self.core is not None
        self.core.reset(time.time_ns())
        answer.success, answer.message = True, "begun anew"
        return answer


def main() -> int:
    """Run the node until it is interrupted; the exit status."""
    rclpy.init()
    executor = SingleThreadedExecutor()
    node = RosPolicyNode()
    executor.add_node(node)
    try:
        if node.get_parameter("autostart").value and node.trigger_configure() is _SUCCESS:
            node.trigger_activate()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
