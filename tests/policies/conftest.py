"""Makes `toys.py` beside this file importable: tests are imported without touching the path."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
# The tensors of these tests are tiny: more threads would only wait for each other.
torch.set_num_threads(1)
