"""Makes `toys.py` beside this file importable: tests are imported without touching the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
