"""Speed of the environments beside the C limit, envpool and Gymnasium: the same as `robo-rlft bench envs`."""

from __future__ import annotations

import sys

from robo_rlft.training.bench.envs import run

if __name__ == "__main__":
    run(json_path=sys.argv[1] if len(sys.argv) > 1 else None)
