"""Statistics that grow with experience, for normalisers when there is no data set."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor


class RunningStats:
    """Mean and standard deviation of every entry of named vectors, in float64 (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count: dict[str, float] = {}
        self.mean: dict[str, Tensor] = {}
        self.m2: dict[str, Tensor] = {}

    def update(self, key: str, rows: Float[Tensor, "row width"]) -> None:
        """Take more rows into account."""
        x = rows.detach().double().cpu()
        old = self.count.get(key, 0.0)
        mean, m2 = x.mean(0), ((x - x.mean(0)) ** 2).sum(0)
        if old:
            delta, total = mean - self.mean[key], old + len(x)
            m2 = self.m2[key] + m2 + delta**2 * old * len(x) / total
            mean = self.mean[key] + delta * len(x) / total
        self.count[key], self.mean[key], self.m2[key] = old + len(x), mean, m2

    def mean_std(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of a key, each [width]."""
        return self.mean[key].numpy(), (self.m2[key] / self.count[key]).sqrt().numpy()

    def statistics(self) -> dict[str, dict[str, np.ndarray]]:
        """`mean` and `std` per key."""
        pairs = {k: self.mean_std(k) for k in self.count}
        return {k: {"mean": mean, "std": std} for k, (mean, std) in pairs.items()}

    def state_dict(self) -> dict[str, dict[str, Tensor | float]]:
        """Values to save."""
        return {"count": dict(self.count), "mean": dict(self.mean), "m2": dict(self.m2)}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        """Inverse of `state_dict`."""
        self.count, self.mean, self.m2 = dict(state["count"]), dict(state["mean"]), dict(state["m2"])


__all__ = ["RunningStats"]
