"""Speed of the MuJoCo tasks on JAX beside the CPU engine: the same as `robo-rlft bench mjx`."""

from __future__ import annotations

import sys

from robo_rlft.training.bench.mjx import run

if __name__ == "__main__":
    run(json_path=sys.argv[1] if len(sys.argv) > 1 else None, device=sys.argv[2] if len(sys.argv) > 2 else "cpu")
