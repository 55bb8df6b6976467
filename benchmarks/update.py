"""Speed of the PPO step beside the plain loop over the denoising steps: the same as `robo-rlft bench update`."""

from __future__ import annotations

import sys

from robo_rlft.training.bench.update import run

if __name__ == "__main__":
    run(json_path=sys.argv[1] if len(sys.argv) > 1 else None)
