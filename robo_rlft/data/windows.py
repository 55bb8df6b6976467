"""Training batches: chunks of actions with the observations before them, from every step of every episode."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from robo_rlft.data.shards import Frames
from robo_rlft.data.store import Dataset
from robo_rlft.errors import ConfigError, DataError


@dataclass
class Batch:
    """B windows. The window of step t holds observations t - obs_horizon + 1 .. t and actions t .. t + chunk - 1.

    Attributes:
        observation: per key; before an episode's start its first observation is repeated.
        action: after an episode's end its last action is repeated.
        mask: True where the action was recorded, False where it was repeated.
        index: step t of each window, as a row of `Dataset.action`.
    """

    observation: dict[str, Shaped[Tensor, "batch horizon ..."]]
    action: Float[Tensor, "batch chunk action"]
    mask: Bool[Tensor, "batch chunk"]
    index: Int64[Tensor, " batch"]


class Windows:
    """One pass over all windows in random order per `for` loop; each window exactly once per pass (epoch).

    The order depends on (seed, epoch) alone, so `state_dict` is three numbers, and a loop that is started again after
    `load_state_dict` gives the very batches that were still to come.

    Args:
        dataset: where the windows come from.
        obs_horizon: observations per window.
        chunk: actions per window.
        batch_size: windows per batch; the last batch of an epoch holds what is left.
        seed: of the order.
        device: where batches are; low-dimensional data stay there, images are read from disk.
        keys: observation keys; all by default.
        episodes: episodes to use (to hold some out); all by default.

    Raises:
        ConfigError: a size below one or an unknown key or episode.
        DataError: there is no step to take windows from.
    """

    def __init__(
        self,
        dataset: Dataset,
        obs_horizon: int,
        chunk: int,
        batch_size: int,
        seed: int,
        device: str | torch.device = "cpu",
        keys: Sequence[str] | None = None,
        episodes: Sequence[int] | None = None,
    ) -> None:
        _check_sizes(obs_horizon=obs_horizon, chunk=chunk, batch_size=batch_size)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self._position = 0
        self._device = torch.device(device)
        chosen = _check_episodes(dataset, episodes)
        spans = _Spans(dataset, chosen)
        used = list(dataset.robot.observation if keys is None else keys)
        low = {key: dataset.observation(key) for key in used if key not in dataset.images}
        self._low = {key: _Strided.observations(rows, spans, obs_horizon, device) for key, rows in low.items()}
        self._images = {key: _ImageWindows(dataset.images[key], spans, obs_horizon) for key in used if key not in low}
        self._action = _Strided.actions(dataset.action, spans, chunk, device)
        self._remaining = torch.from_numpy(spans.remaining).to(device)
        self._index = torch.from_numpy(spans.step).to(device)
        self._ahead = torch.arange(chunk, device=device)

    def __len__(self) -> int:
        """Batches in one epoch."""
        return math.ceil(self.num_windows / self.batch_size)

    @property
    def num_windows(self) -> int:
        """Windows in one epoch: the steps of the chosen episodes."""
        return len(self._index)

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the present epoch, then move on to the next one."""
        epoch = self.epoch
        tables = self._shuffled(self._order(epoch))
        while self.epoch == epoch:
            part = slice(self._position, self._position + self.batch_size)
            self._position = part.stop
            if self._position >= self.num_windows:
                self.epoch, self._position = epoch + 1, 0
            yield self._batch(tables, part)

    def stream(self) -> Iterator[Batch]:
        """Batches without end, one epoch after the other."""
        while True:
            yield from self

    def state_dict(self) -> dict[str, int]:
        """What decides the batches to come."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self._position, "num_windows": self.num_windows}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            DataError: it was taken with another number of windows.
        """
        if state["num_windows"] != self.num_windows:
            raise DataError(
                f"the saved loader had {state['num_windows']} windows, this data set gives {self.num_windows}: "
                "resume with the same data set, chunk and episodes"
            )
        self.seed, self.epoch, self._position = state["seed"], state["epoch"], state["position"]

    def _order(self, epoch: int) -> Int64[Tensor, " window"]:
        words = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
        return torch.randperm(self.num_windows, generator=generator)

    def _shuffled(self, order: Int64[Tensor, " window"]) -> _Tables:
        """Look everything up once per epoch, so that a batch needs only slices of it."""
        on_device = order.to(self._device)
        return _Tables(
            order=order.numpy(),
            low={key: rows.start[on_device] for key, rows in self._low.items()},
            action=self._action.start[on_device],
            remaining=self._remaining[on_device, None],
            index=self._index[on_device],
        )

    def _batch(self, tables: _Tables, part: slice) -> Batch:
        observation = {key: rows.gather(tables.low[key][part]) for key, rows in self._low.items()}
        for key, frames in self._images.items():
            observation[key] = frames.gather(tables.order[part], self._device)
        return Batch(
            observation=observation,
            action=self._action.gather(tables.action[part]),
            mask=tables.remaining[part] > self._ahead,
            index=tables.index[part],
        )


@dataclass(frozen=True)
class _Tables:
    """Where each window of an epoch starts, in the order of the epoch."""

    order: np.ndarray
    low: dict[str, Tensor]
    action: Tensor
    remaining: Tensor
    index: Tensor


class _Spans:
    """Where the windows lie: one per step of the chosen episodes.

    Attributes:
        step: row of `Dataset.action` of each window's step.
        first_frame, frame: rows of the observations at the episode's start and at the step.
        remaining: steps from this one to the episode's end, itself included.
        number: which of the chosen episodes, counted from 0.
        bounds: (first step, end, first observation) of each chosen episode.
    """

    def __init__(self, dataset: Dataset, episodes: Sequence[int]) -> None:
        chosen = np.asarray(episodes, np.int64)
        start, end = dataset.episode_starts[chosen], dataset.episode_ends[chosen]
        length = end - start
        self.number = np.repeat(np.arange(len(chosen)), length)
        local = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        self.step = start[self.number] + local
        self.first_frame = (start + chosen)[self.number]
        self.frame = self.first_frame + local
        self.remaining = length[self.number] - local
        self.bounds = list(zip(start.tolist(), end.tolist(), (start + chosen).tolist(), strict=True))


class _Strided:
    """Windows of consecutive rows as ONE row each of an overlapping view, so that a gather is one copy per window.

    Every episode is stored with the repeated rows it needs, once; the view costs no memory.
    """

    def __init__(self, rows: np.ndarray, starts: np.ndarray, length: int, device: str | torch.device) -> None:
        self._shape = (length, *rows.shape[1:])
        self.start = torch.from_numpy(starts).to(device)
        flat = torch.from_numpy(rows).to(device).reshape(len(rows), -1)
        width = flat.shape[1]
        self._view = flat.as_strided((len(rows) - length + 1, length * width), (width, 1))

    @classmethod
    def observations(cls, rows: np.ndarray, spans: _Spans, horizon: int, device: str | torch.device) -> _Strided:
        """Windows that end at each step; an episode's first row comes horizon - 1 times more."""
        before = horizon - 1
        parts = [_repeated(rows[o : o + end - start], before, 0) for start, end, o in spans.bounds]
        return cls(np.concatenate(parts), np.arange(len(spans.step)) + before * spans.number, horizon, device)

    @classmethod
    def actions(cls, rows: np.ndarray, spans: _Spans, chunk: int, device: str | torch.device) -> _Strided:
        """Windows that start at each step; an episode's last row comes chunk - 1 times more."""
        after = chunk - 1
        parts = [_repeated(rows[start:end], 0, after) for start, end, _ in spans.bounds]
        return cls(np.concatenate(parts), np.arange(len(spans.step)) + after * spans.number, chunk, device)

    def gather(self, starts: Int64[Tensor, " batch"]) -> Shaped[Tensor, "batch length ..."]:
        return self._view.index_select(0, starts).view(len(starts), *self._shape)


class _ImageWindows:
    """Windows of frames that stay on disk."""

    def __init__(self, frames: Frames, spans: _Spans, horizon: int) -> None:
        self._frames, self._first, self._last = frames, spans.first_frame, spans.frame
        self._back = np.arange(1 - horizon, 1)
        self._buffers = _Buffers()

    def gather(self, windows: np.ndarray, device: torch.device) -> Shaped[Tensor, "batch horizon height width rgb"]:
        rows = np.maximum(self._last[windows, None] + self._back, self._first[windows, None])
        out = self._buffers.take((rows.size, *self._frames.shape[1:]))
        self._frames.gather(rows.reshape(-1), out)
        return torch.from_numpy(out.reshape(*rows.shape, *out.shape[1:])).to(device)


class _Buffers:
    """Memory of batches that nobody holds any more, for the next ones: fresh pages cost as much as the copy itself."""

    def __init__(self) -> None:
        self._kept: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of bytes; its content is undefined."""
        size = math.prod(shape)
        for place in range(len(self._kept)):
            # one reference is the list's own; any tensor, view or slice of the batch holds another
            if len(self._kept[place]) >= size and sys.getrefcount(self._kept[place]) == _UNUSED:
                return self._kept[place][:size].reshape(shape)
        fresh = np.empty(size, np.uint8)
        if len(self._kept) < _MAX_BUFFERS:
            self._kept.append(fresh)
        return fresh.reshape(shape)


_UNUSED = 2
"""`sys.getrefcount` of an array that only a list holds: the list and the call's own argument."""
_MAX_BUFFERS = 4


def _repeated(rows: np.ndarray, before: int, after: int) -> np.ndarray:
    return np.concatenate([rows[:1].repeat(before, 0), rows, rows[-1:].repeat(after, 0)])


def _check_sizes(**sizes: Any) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")


def _check_episodes(dataset: Dataset, episodes: Sequence[int] | None) -> Sequence[int]:
    chosen = range(dataset.num_episodes) if episodes is None else episodes
    if not len(chosen):
        raise DataError(f"data set {dataset.path} gives no windows: it has {dataset.num_episodes} episodes, 0 chosen")
    if min(chosen) < 0 or max(chosen) >= dataset.num_episodes:
        raise ConfigError(f"episodes {min(chosen)}..{max(chosen)} chosen; {dataset.path} has {dataset.num_episodes}")
    return chosen
