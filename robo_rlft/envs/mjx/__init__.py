"""MuJoCo tasks on JAX (MJX): the same tables as the CPU engine, thousands of environments on a GPU.

Nothing is imported here: `family` is loaded when an environment `mjx:...` is made.
"""
