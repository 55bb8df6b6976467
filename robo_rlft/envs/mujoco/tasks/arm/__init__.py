"""A 7-joint arm with a gripper: its model, end-effector control, two tasks and their scripted experts."""
