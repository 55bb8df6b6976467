"""Makes the toy policies of `tests/policies/toys.py` importable."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "policies"))
# The tensors of these tests are tiny: more threads would only wait for each other.
torch.set_num_threads(1)
