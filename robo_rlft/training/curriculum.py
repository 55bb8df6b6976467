"""What the environments practise next: every fine-tuning method collects through this, and tells it its advantages.

curriculum = Curriculum(env, config.curriculum, seed)
curriculum.choose(); env.reset(...); curriculum.begin()     # once
curriculum.choose()                                         # each round, before its first chunk
result = curriculum.next(result, episodes)                  # after each chunk: new episodes may begin elsewhere
curriculum.learn(variant, advantage)                        # after each round
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult
from robo_rlft.errors import ConfigError
from robo_rlft.learning.config import CurriculumConfig
from robo_rlft.learning.curriculum import Bandit, StartStates, in_spreads

Episode = tuple[float, int, bool]
"""A finished episode: undiscounted return, length in control steps, success."""
FRESH = -1
"""The place of an episode that began from no kept start."""


class Curriculum:
    """Chooses the variant and the start of each environment's next episode.

    Args:
        env: where it trains.
        config: how to choose.
        seed: of the choices.

    Attributes:
        bandit: over the variants, where it chooses them; else all are drawn equally often.
        starts: kept starts, where they are replayed.

    Raises:
        ConfigError: the environment cannot do what the settings ask for.
    """

    def __init__(self, env: BatchEnv, config: CurriculumConfig, seed: int) -> None:
        _check(env, config)
        self.env, self.config = env, config
        self.rng = np.random.default_rng([seed, _STREAM])
        bandit, starts = config.name in ("bandit", "both"), config.name in ("initial_states", "both")
        self.bandit = Bandit(len(env.variants), config.alpha, config.temperature, config.explore) if bandit else None
        binary = config.score == "success" or (config.score == "auto" and env.has_success)
        self.starts = StartStates(config.states, config.alpha, binary) if starts else None
        self._idle = self.starts is None and len(env.variants) == 1
        self._place = np.full(env.num_envs, FRESH)
        self._borrowed = np.zeros(env.num_envs, bool)
        self._variant = np.zeros(env.num_envs, np.int64)
        self._ended: list[list[float]] = []
        self._replayed = 0

    @property
    def probabilities(self) -> Float[np.ndarray, " variant"]:
        """How often each variant is chosen."""
        count = len(self.env.variants)
        return self.bandit.probabilities if self.bandit else np.full(count, 1 / count)

    def choose(self, ids: Sequence[int] | None = None) -> None:
        """Draw the variants of the next episodes, of all environments by default."""
        if len(self.env.variants) > 1:
            count = self.env.num_envs if ids is None else len(ids)
            drawn = self.rng.choice(len(self.env.variants), count, p=self.probabilities)
            self.env.set_variants(drawn.tolist(), ids)

    def begin(self) -> None:
        """All environments have just begun an episode."""
        self._variant = self.env.variant.copy()
        if self.starts is not None:
            self._keep(range(self.env.num_envs))

    def next(self, result: ChunkResult, episodes: Sequence[Episode]) -> ChunkResult:
        """Account for the episodes that ended in a chunk and decide how those after them begin.

        Args:
            result: of the chunk.
            episodes: the ended ones, in the order of their environments.

        Returns:
            The same, with the observations to act on where episodes now begin elsewhere.
        """
        ended = [] if self._idle else result.done.nonzero().flatten().tolist()
        if not ended:
            return result
        self._account(ended, episodes)
        if self.starts is not None:
            result = self._restart(result, ended)
        self._variant = self.env.variant.copy()
        self.choose(ended)
        return result

    def fork(self, leaders: Sequence[int]) -> None:
        """Every environment is now in the state of its leader."""
        rows = np.asarray(leaders)
        self._place, self._variant = self._place[rows], self.env.variant.copy()
        self._borrowed = self._borrowed[rows] | (rows != np.arange(len(rows)))

    def learn(self, variant: Int[np.ndarray, "*row"], advantage: Tensor) -> None:
        """What a round's chunks taught: the learner's advantages before it centres them, with each one's variant."""
        if self.bandit is not None:
            values = advantage.detach().double().cpu().numpy().ravel()
            self.bandit.update(np.ravel(variant), in_spreads(values))

    def figures(self) -> dict[str, float]:
        """Figures of a round: means over the episodes that ended in it, and what is chosen next; forgets them."""
        ended, self._ended = np.array(self._ended).reshape(-1, 3), []
        replayed, self._replayed = self._replayed, 0
        values: dict[str, float] = {}
        for i, name in enumerate(self.env.variants if len(self.env.variants) > 1 else ()):
            values[f"curriculum/probability/{name}"] = float(self.probabilities[i])
            values |= {f"curriculum/q/{name}": float(self.bandit.q[i])} if self.bandit else {}
            own = ended[ended[:, 0] == i]
            what, column = ("success", 2) if self.env.has_success else ("return", 1)
            values |= {f"curriculum/{what}/{name}": float(own[:, column].mean())} if len(own) else {}
        if self.starts is not None:
            values["curriculum/starts"] = len(self.starts)
            values["curriculum/starts_score"] = float(self.starts.score.mean()) if len(self.starts) else 0.0
            values["curriculum/replayed"] = replayed / max(len(ended), 1)
        return values

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if nothing had happened."""
        return {
            "rng": dict(self.rng.bit_generator.state),
            "bandit": self.bandit.state_dict() if self.bandit else {},
            "starts": self.starts.state_dict() if self.starts else {},
            "place": self._place,
            "borrowed": self._borrowed,
            "variant": self._variant,
        }

    def load_state_dict(self, state: dict[str, Any], *, continued: bool) -> None:
        """Inverse of `state_dict`.

        Args:
            state: what was saved.
            continued: the environments' episodes go on too; else they have begun anew, from starts of their own.
        """
        self.rng.bit_generator.state = state["rng"]
        if self.bandit is not None:
            self.bandit.load_state_dict(state["bandit"])
        if self.starts is not None:
            self.starts.load_state_dict(state["starts"])
        if continued:
            self._place, self._borrowed = np.array(state["place"]), np.array(state["borrowed"])
            self._variant = np.array(state["variant"])

    def _account(self, ended: Sequence[int], episodes: Sequence[Episode]) -> None:
        for i, (total, _, success) in zip(ended, episodes, strict=True):
            self._ended.append([self._variant[i], total, success])
            if self.starts is not None and self._place[i] != FRESH:
                self.starts.update(int(self._place[i]), float(success) if self.starts.binary else total)
        self._place[list(ended)] = FRESH

    def _restart(self, result: ChunkResult, ended: Sequence[int]) -> ChunkResult:
        """Put kept starts into some of the ended environments, and keep the starts of the others."""
        assert self.starts is not None
        variant = self.env.variant
        replay = {i: self.starts.sample(int(variant[i]), self.rng) for i in ended if self._replays()}
        chosen = {i: place for i, place in replay.items() if place is not None}
        fresh = [i for i in ended if i not in chosen]
        obs = self._refresh([i for i in fresh if self._borrowed[i]])
        if chosen:
            rows = [self.starts.states[place] for place in chosen.values()]
            obs = self.env.set_state({k: np.stack([row[k] for row in rows]) for k in rows[0]}, list(chosen))
            self._place[list(chosen)] = list(chosen.values())
            self._borrowed[list(chosen)] = True
            self._replayed += len(chosen)
        self._keep(fresh)
        return result if obs is None else replace(result, obs=obs)

    def _replays(self) -> bool:
        return bool(self.rng.random() < self.config.replay)

    def _refresh(self, ids: list[int]) -> dict[str, Tensor] | None:
        """Draw anew where the environment's random state came with a kept start: others have drawn from it already."""
        if not ids:
            return None
        seeds = self.rng.integers(_SEEDS, size=len(ids)).tolist()
        self.env.set_variants(self.env.variant[ids].tolist(), ids)
        obs, _ = self.env.reset(seed=seeds, options={"ids": ids})
        self._borrowed[ids] = False
        return obs

    def _keep(self, ids: Sequence[int]) -> None:
        """Keep the starts of the episodes that environments have just begun."""
        assert self.starts is not None
        if not len(ids):
            return
        state, variant = self.env.get_state(list(ids)), self.env.variant
        for row, i in enumerate(ids):
            used = np.isin(np.arange(len(self.starts)), self._place)
            place = self.starts.add({k: v[row].copy() for k, v in state.items()}, int(variant[i]), used)
            self._place[i] = FRESH if place is None else place


_STREAM = 0x5EC
"""Sets the choices' random numbers apart from others of the same seed."""
_SEEDS = 2**31


def _check(env: BatchEnv, config: CurriculumConfig) -> None:
    name, env_id = config.name, env.robot.env_id
    if name in ("bandit", "both") and len(env.variants) < 2:
        raise ConfigError(
            f"curriculum.name={name} chooses between variants, and {env_id} has one: name some, e.g. "
            "'env.params.variants={easy: {...}, hard: {...}}', or use curriculum.name=initial_states"
        )
    if name in ("initial_states", "both") and env.fidelity != "exact":
        raise ConfigError(
            f"curriculum.name={name} begins episodes from saved states, which {env_id} restores with fidelity "
            f"'{env.fidelity}', not 'exact': use curriculum.name=bandit or none"
        )
    if config.score == "success" and not env.has_success:
        raise ConfigError(f"curriculum.score=success: {env_id} defines no success; use curriculum.score=return")
