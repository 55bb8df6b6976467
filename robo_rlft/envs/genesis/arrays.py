"""The array library of a Genesis environment: numpy on the CPU, where small arrays are quicker in it, torch on a GPU.

Both look at Genesis' own memory; terms are written for either.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = Any
"""An array of `Arrays.xp`, environment first."""


class Arrays:
    """Makes and converts arrays of one library on one device.

    Args:
        device: of all arrays.
        dtype: of floating point numbers.
        torch_on_cpu: use torch on the CPU too (tests compare the two).

    Attributes:
        xp: the library, numpy or torch.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, torch_on_cpu: bool = False) -> None:
        self.device, self.dtype = device, dtype
        self.is_torch = device.type != "cpu" or torch_on_cpu
        self.xp: ModuleType = torch if self.is_torch else np
        self._numpy_dtype = torch.empty(0, dtype=dtype).numpy().dtype

    def own(self, values: np.ndarray | Tensor) -> Array:
        """Of this library and device; floating point numbers of its dtype. May share memory."""
        tensor = torch.from_numpy(np.ascontiguousarray(values)) if isinstance(values, np.ndarray) else values
        tensor = tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)
        return tensor if self.is_torch else tensor.numpy()

    def view(self, tensor: Tensor) -> Array:
        """The same memory."""
        return tensor if self.is_torch else tensor.numpy()

    def tensor(self, values: Array) -> Tensor:
        """As torch, the same memory."""
        return values if self.is_torch else torch.from_numpy(values)

    def host(self, values: Array) -> np.ndarray:
        """As numpy; the same memory on the CPU."""
        return values.cpu().numpy() if self.is_torch else values

    def full(self, shape: tuple[int, ...], value: bool | int | float) -> Array:
        """Filled with a value: bool, int64 or floating point as the value is."""
        kind = {bool: torch.bool, int: torch.int64, float: self.dtype}[type(value)]
        return self.view(torch.full(shape, value, dtype=kind, device=self.device))

    def blank(self, like: Array, rows: int) -> Array:
        """Zeros of the type and the row shape of `like`."""
        shape = (rows, *like.shape[1:])
        return like.new_zeros(shape) if self.is_torch else np.zeros(shape, like.dtype)

    def number(self, values: Array) -> Array:
        """As floating point numbers of the dtype."""
        return values.to(self.dtype) if self.is_torch else values.astype(self._numpy_dtype, copy=False)

    def kept(self, values: Array, like: Array) -> Array:
        """In the type of `like`, which a term may have widened."""
        return values.to(like.dtype) if self.is_torch else values.astype(like.dtype, copy=False)

    def copy(self, values: Array) -> Array:
        """With memory of its own."""
        return values.clone() if self.is_torch else values.copy()

    def rows(self, ids: np.ndarray) -> Array:
        """Indices as this library wants them."""
        return torch.from_numpy(ids).to(self.device) if self.is_torch else ids
