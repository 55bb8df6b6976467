"""A bundle and a robot that talk to each other over ROS 2's topics. The policy's side imports no torch."""
