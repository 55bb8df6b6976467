"""Runs under a real ROS 2: `echo` sends back all that comes; `drive` takes a node through its states and stops it.

    python ros_peer.py echo SECONDS     python ros_peer.py drive NODE

Prints one JSON object per line.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from typing import Any

import rclpy
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node
from rclpy.serialization import serialize_message
from std_srvs.srv import Trigger


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def echo(node: Node, kinds: list[str], seconds: float) -> None:
    """Every type: from /there/<i> to /back/<i>, with its bytes as this ROS makes them, and the hash it sees."""
    for i, kind in enumerate(kinds):
        package, _, name = kind.split("/")
        cls = getattr(import_module(f"{package}.msg"), name)
        back = node.create_publisher(cls, f"/back/n{i}", 10)

        def received(message: Any, i: int = i, kind: str = kind, back: Any = back) -> None:
            found = node.get_publishers_info_by_topic(f"/there/n{i}")
            hashes = [str(info.topic_type_hash) for info in found]
            say(kind=kind, data=serialize_message(message).hex(), hashes=hashes)
            back.publish(message)

        node.create_subscription(cls, f"/there/n{i}", received, 10)
    say(ready=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.05)


def drive(node: Node, name: str) -> None:
    """Configure and activate; a line on standard input each for the emergency stop, the reset and the deactivation."""
    call(node, ChangeState, f"{name}/change_state", transition=1)
    say(state=call(node, GetState, f"{name}/get_state").current_state.label)
    call(node, ChangeState, f"{name}/change_state", transition=3)
    say(state=call(node, GetState, f"{name}/get_state").current_state.label)
    for service in ("emergency_stop", "reset"):
        sys.stdin.readline()
        answer = call(node, Trigger, f"{name}/{service}")
        say(service=service, success=answer.success, message=answer.message)
    sys.stdin.readline()
    call(node, ChangeState, f"{name}/change_state", transition=4)
    say(state=call(node, GetState, f"{name}/get_state").current_state.label)


def call(node: Node, kind: Any, name: str, transition: int = 0) -> Any:
    client = node.create_client(kind, name)
    if not client.wait_for_service(timeout_sec=20.0):
        raise TimeoutError(name)
    request = kind.Request()
    if transition:
        request.transition.id = transition
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=20.0)
    return future.result()


def main() -> None:
    rclpy.init()
    node = Node("peer")
    if sys.argv[1] == "echo":
        echo(node, json.loads(sys.argv[3]), float(sys.argv[2]))
    else:
        drive(node, sys.argv[2])
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
