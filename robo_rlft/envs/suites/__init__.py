"""Simulators and benchmarks of other projects, each a family of ids: one `SingleEnv` class per package.

Nothing here is imported before an environment of its family is made.
"""
