"""`python -m robo_rlft.cli`, for where the script `robo-rlft` is not on the path."""

from __future__ import annotations

import sys

from robo_rlft.cli import main

if __name__ == "__main__":
    sys.exit(main())
