"""ROS 2 messages without ROS: their definitions, their bytes, and the bags that hold them."""
