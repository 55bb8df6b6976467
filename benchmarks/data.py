"""Speed of the window loader beside numpy on a memory map and in RAM: the same as `robo-rlft bench data`."""

from __future__ import annotations

import sys

from robo_rlft.training.bench.data import run

if __name__ == "__main__":
    run(json_path=sys.argv[1] if len(sys.argv) > 1 else None)
