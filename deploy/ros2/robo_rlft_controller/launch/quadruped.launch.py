"""ros2_control with the policy's controller, inactive at first.

It moves the robot after `ros2 control switch_controllers --activate policy_controller`.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description() -> LaunchDescription:
    """State publisher, controller manager and the spawners of its controllers."""
    share = Path(get_package_share_directory("robo_rlft_controller"))
    description = {"robot_description": (share / "urdf" / "quadruped.urdf").read_text()}
    settings = str(share / "config" / "quadruped.yaml")
    manager = "controller_manager"
    bundle = {"policy_controller.bundle": LaunchConfiguration("bundle")}
    names = ("joint_state_broadcaster", "imu_sensor_broadcaster")
    return LaunchDescription(
        [
            DeclareLaunchArgument("bundle", description="folder of the controller bundle"),
            Node(package="robot_state_publisher", executable="robot_state_publisher", parameters=[description]),
            Node(package=manager, executable="ros2_control_node", parameters=[description, settings, bundle]),
            Node(package=manager, executable="spawner", arguments=[*names]),
            Node(package=manager, executable="spawner", arguments=["policy_controller", "--inactive"]),
        ]
    )
