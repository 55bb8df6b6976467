"""Curriculum: which variant of a task, and which start, teaches the most now.

Self-Evolving Curriculum (SEC, Chen et al. 2025, arXiv 2505.14970): variants are the arms of a non-stationary bandit, an
arm's reward is the mean absolute advantage of what was done on it, and arms are drawn from a Boltzmann distribution.

    r_t(c)     = E[ |A| : rows of arm c ]
    Q_{t+1}(c) = alpha r_t(c) + (1 - alpha) Q_t(c);     an arm without rows keeps its Q
    P_t(c)     = exp(Q_t(c) / tau) / sum_c' exp(Q_t(c') / tau)

Two things are ours, for many arms and few rows. An arm's first reward is its Q, and until then it counts as the best,
so that each is tried and none starts behind. And a share of the draws is even: poor arms are asked again.

Starts by the variance of what comes of them: a start that always succeeds or always fails teaches nothing. A buffer
keeps starts with the outcomes of their episodes and replays each in proportion to its learnability p (1 - p) (Tzannetos
et al. 2023, ProCuRL; Rutherford et al. 2024, "No Regrets"), or, of tasks without success, to the std of its returns:

    p (1 - p)  ~  (a + 1/2)(b + 1/2) / ((a + b + 1)(a + b + 2))     its mean under Beta(a + 1/2, b + 1/2)
    std        ~  sqrt( (s0^2 + S) / (1 + max(n - 1, 0)) )          s0^2: variance over all starts, as one more outcome

a, b, n, S are sums over a start's outcomes (successes, failures, outcomes, squared deviations) in which an outcome's
weight falls by 1 - alpha with every later one, as the policy that brought it about is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

Row = dict[str, np.ndarray]
"""One environment's saved state."""


class Bandit:
    """Draws arms by how much was learned from each of them.

    Args:
        arms: how many there are.
        alpha: step of Q.
        temperature: tau, in units of the advantage.
        explore: share of even draws.

    Attributes:
        tried: arms that had rows.
    """

    def __init__(self, arms: int, alpha: float, temperature: float, explore: float = 0.0) -> None:
        self.alpha, self.temperature, self.explore = alpha, temperature, explore
        self._q, self.tried = np.zeros(arms), np.zeros(arms, bool)

    @property
    def q(self) -> Float[np.ndarray, " arm"]:
        """Q_t; of an arm that was never tried, the best one's."""
        return np.where(self.tried, self._q, self._q.max(initial=0.0))

    @property
    def probabilities(self) -> Float[np.ndarray, " arm"]:
        """P_t, mixed with even draws."""
        weights = np.exp((self.q - self.q.max()) / self.temperature)
        return (1 - self.explore) * weights / weights.sum() + self.explore / len(weights)

    def sample(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, " draw"]:
        """Independent draws of arms."""
        return rng.choice(len(self.tried), count, p=self.probabilities)

    def update(self, arm: Int[np.ndarray, " row"], advantage: Float[np.ndarray, " row"]) -> None:
        """One step of Q for the arms that have rows."""
        for c in np.unique(arm):
            reward = np.abs(advantage[arm == c]).mean()
            step = self.alpha if self.tried[c] else 1.0
            self._q[c] = step * reward + (1 - step) * self._q[c]
            self.tried[c] = True

    def state_dict(self) -> dict[str, Any]:
        """Arrays to save."""
        return {"q": self._q.copy(), "tried": self.tried.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._q, self.tried = np.array(state["q"], float), np.array(state["tried"], bool)


def in_spreads(advantage: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Advantages in units of their root mean square, so that a temperature means the same for every task and critic.

    They are not centred: a mean of 0 would give an arm from which nothing is to be learned the others' mean.
    """
    size = np.sqrt(np.mean(np.square(advantage, dtype=float)))
    return advantage / size if size > 0 else np.zeros_like(advantage)


class StartStates:
    """A buffer of starts with what came of them.

    Args:
        capacity: starts kept; a new one replaces the least learnable that no episode is under way from.
        alpha: how fast outcomes are forgotten.
        binary: outcomes are 0 or 1, and the score is p (1 - p); else they are returns, and it is their std.

    Attributes:
        states: the starts.
        variant: of which variant of the task each is.
        count, mean, deviation: n, mean and S of the outcomes of each.
        overall: count, mean and S of all outcomes, forgotten as slowly as the buffer is large.
    """

    def __init__(self, capacity: int, alpha: float, binary: bool) -> None:
        self.capacity, self.alpha, self.binary = capacity, alpha, binary
        self.states: list[Row] = []
        self.variant = np.zeros(0, np.int64)
        self.count, self.mean, self.deviation = np.zeros(0), np.zeros(0), np.zeros(0)
        self.overall = np.zeros(3)

    def __len__(self) -> int:
        return len(self.states)

    @property
    def score(self) -> Float[np.ndarray, " state"]:
        """How much each start teaches."""
        if self.binary:
            a, b = self.count * self.mean + 0.5, self.count * (1 - self.mean) + 0.5
            return a * b / ((a + b) * (a + b + 1))
        count, _, deviation = self.overall
        prior = deviation / count if count else 0.0
        return np.sqrt((prior + self.deviation) / (1 + np.maximum(self.count - 1, 0)))

    def sample(self, variant: int, rng: np.random.Generator) -> int | None:
        """A start of a variant, in proportion to its score (evenly where all are 0); None without one."""
        rows = np.flatnonzero(self.variant == variant)
        if not len(rows):
            return None
        weights = self.score[rows]
        total = weights.sum()
        return int(rng.choice(rows, p=weights / total if total > 0 else None))

    def add(self, state: Row, variant: int, used: Bool[np.ndarray, " state"]) -> int | None:
        """Keep a start; returns its place, None where all others are in use.

        Args:
            state: where an episode begins.
            variant: of the task.
            used: places that an episode is under way from.
        """
        if len(self) < self.capacity:
            self.states.append(state)
            self.variant = np.append(self.variant, variant)
            self.count, self.mean, self.deviation = (np.append(x, 0.0) for x in self._outcomes)
            return len(self) - 1
        if used.all():
            return None
        slot = int(np.where(used, np.inf, self.score).argmin())
        self.states[slot], self.variant[slot] = state, variant
        for values in self._outcomes:
            values[slot] = 0.0
        return slot

    def update(self, slot: int, outcome: float) -> None:
        """An episode from a start has ended so (West 1979, with forgetting)."""
        moments = np.array([values[slot] for values in self._outcomes])
        for values, new in zip(self._outcomes, _with(moments, outcome, 1 - self.alpha), strict=True):
            values[slot] = new
        self.overall = _with(self.overall, outcome, 1 - 1 / self.capacity)

    def state_dict(self) -> dict[str, Any]:
        """Arrays to save."""
        names = self.states[0].keys() if self.states else ()
        figures = {name: getattr(self, name).copy() for name in _FIGURES}
        return figures | {"states": {name: np.stack([row[name] for row in self.states]) for name in names}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        for name in _FIGURES:
            setattr(self, name, np.array(state[name]))
        columns = state["states"]
        self.states = [{name: values[i] for name, values in columns.items()} for i in range(len(self.variant))]

    @property
    def _outcomes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.count, self.mean, self.deviation


_FIGURES = ("variant", "count", "mean", "deviation", "overall")


def _with(moments: Float[np.ndarray, "3"], outcome: float, kept: float) -> Float[np.ndarray, "3"]:
    """Count, mean and squared deviations with one more outcome, the others weighing `kept` of what they did."""
    count = kept * moments[0] + 1
    change = outcome - moments[1]
    mean = moments[1] + change / count
    return np.array([count, mean, kept * moments[2] + change * (outcome - mean)])
