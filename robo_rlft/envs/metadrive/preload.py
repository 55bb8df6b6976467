"""Imported once by the process that workers are forked from: what they have in common lies in shared memory pages."""

from robo_rlft.envs.metadrive import drive, joint

__all__ = ["drive", "joint"]
