"""robo_rlft: from robot demonstrations to a fine-tuned policy to a controller on the robot."""

__version__ = "0.1.0"
