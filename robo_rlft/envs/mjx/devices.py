"""Between torch and JAX: devices, precision, and arrays that change hands without a copy."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

# JAX would otherwise take three quarters of the GPU's memory when it first touches it, and torch would starve.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

with redirect_stdout(io.StringIO()):  # MJX prints that there is no warp, which nothing here uses
    import mujoco.mjx  # noqa: F401
import numpy as np
import torch
from torch import Tensor

from robo_rlft.errors import ConfigError

FLOATS = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


def jax_device(device: torch.device) -> Any:
    """JAX's name for a torch device.

    Raises:
        ConfigError: JAX does not see it.
    """
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={device}: MJX runs on 'cpu' or 'cuda'")
    try:
        found = jax.devices(device.type)
    except RuntimeError as error:
        raise ConfigError(
            f"device={device}: this JAX {jax.__version__} sees no GPU: pip install 'jax[cuda12]', or use device=cpu"
        ) from error
    number = device.index or 0
    if number >= len(found):
        raise ConfigError(f"device={device}: JAX sees {len(found)} of that kind, from 0 to {len(found) - 1}")
    return found[number]


class Place:
    """One device and one precision: where an environment's arrays live.

    Args:
        device: of the tensors given and returned.
        dtype: float32 or float64, of physics, observations and rewards.

    Raises:
        ConfigError: JAX does not see the device, or the dtype is another one.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        if dtype not in FLOATS:
            raise ConfigError(f"MJX got dtype {dtype}: expected torch.float32 or torch.float64")
        self.device, self.dtype = device, FLOATS[dtype]
        self.jax = jax_device(device)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Everything JAX does within is done here, and no matrix product is rounded to fewer digits than asked for."""
        # By default JAX multiplies float32 matrices in TF32 on recent GPUs: three digits, too few for contacts.
        double = self.dtype == np.float64
        _forget_other_precision(double)
        with jax.enable_x64(double), jax.default_device(self.jax), jax.default_matmul_precision("highest"):
            yield

    def put(self, tree: Any) -> Any:
        """A tree of numpy arrays on the device, floats in its precision; later writes to them do not reach it."""
        return jax.device_put(jax.tree.map(self._own, tree), self.jax)

    def from_torch(self, tensor: Tensor) -> jax.Array:
        """The same memory as a JAX array. Nobody may write to it any more."""
        return jax.device_put(jax.dlpack.from_dlpack(tensor.contiguous()), self.jax)

    def _own(self, values: np.ndarray) -> np.ndarray:
        # A copy in any case: JAX may go on reading the memory it is given.
        return np.array(values, self.dtype if values.dtype.kind == "f" else values.dtype)


def _forget_other_precision(double: bool) -> None:
    """JAX keeps traced parts of its library across precisions, and a program made of both does not compile.

    A process that takes turns between float32 and float64 compiles anew at every turn.
    """
    if _precision and _precision[-1] != double:
        jax.clear_caches()
    _precision[:] = [double]


_precision: list[bool] = []
"""Whether this process last computed in float64; empty at first."""


def to_torch(array: jax.Array) -> Tensor:
    """The same memory as a tensor on the same device."""
    return torch.from_dlpack(array)
