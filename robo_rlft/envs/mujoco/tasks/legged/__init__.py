"""Legged robots that track commanded velocities, on primitive models of our own."""
