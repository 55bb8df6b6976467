"""The matrix products of a piece of a program, counted while it runs and timed alone: the floor of its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

REPEATS, SECONDS = 5, 0.02
"""A product is timed this often, and at least for so long."""


@dataclass
class Product:
    """One shape of a matrix product or convolution.

    Attributes:
        call: computes it again on the operands it was first seen with.
        flops: floating-point operations of one call.
        times: how often it was seen, by part.
    """

    call: Callable[[], Any]
    flops: int
    times: dict[str, int] = field(default_factory=dict)


class CountProducts(TorchDispatchMode):
    """Inside the block, every matrix product and convolution, forward and backward, is counted.

    Args:
        part: names the part of the program that is running.
    """

    def __init__(self, part: Callable[[], str]) -> None:
        super().__init__()
        self.part = part
        self.products: dict[tuple[Any, ...], Product] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count and go on."""
        del types
        options = dict(kwargs or {})
        out = func(*args, **options)
        count_flops = flop_registry.get(func._overloadpacket)
        if count_flops is not None:
            key = (func, *_signature(args, options))
            if key not in self.products:
                flops = cast("Callable[..., int]", count_flops)(*args, **options, out_val=out)
                self.products[key] = Product(lambda: func(*args, **options), flops)
            times = self.products[key].times
            times[self.part()] = times.get(self.part(), 0) + 1
        return out


@dataclass(frozen=True)
class Floor:
    """What the products of a program take alone.

    Attributes:
        seconds: processor seconds by part.
        flops: floating-point operations by part.
    """

    seconds: Mapping[str, float]
    flops: Mapping[str, float]


def floor_of(counted: CountProducts) -> Floor:
    """Time every shape alone, its operands in the caches where they fit, and add up."""
    seconds: dict[str, float] = {}
    flops: dict[str, float] = {}
    for product in counted.products.values():
        each = _seconds(product.call)
        for part, times in product.times.items():
            seconds[part] = seconds.get(part, 0.0) + each * times
            flops[part] = flops.get(part, 0.0) + float(product.flops) * times
    return Floor(seconds, flops)


@torch.no_grad()
def _seconds(call: Callable[[], Any]) -> float:
    """Processor seconds of a call, the least of several turns."""
    call()
    start = time.process_time()
    call()
    count = max(1, int(SECONDS / REPEATS / max(time.process_time() - start, 1e-7)))
    turns = []
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(count):
            call()
        turns.append((time.process_time() - start) / count)
    return min(turns)


def _signature(args: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, ...]:
    leaves, _ = tree_flatten((args, dict(options)))
    return tuple((tuple(x.shape), x.stride(), x.dtype) if isinstance(x, Tensor) else repr(x) for x in leaves)
