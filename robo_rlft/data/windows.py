"""Training batches: chunks of actions with the observations before them, from every step of every episode."""

from __future__ import annotations

import math
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
        self._offsets = torch.arange(chunk, device=device)

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
        order = self._order(epoch)
        on_device = order.to(self._device)
        while self.epoch == epoch:
            part = slice(self._position, self._position + self.batch_size)
            self._position = part.stop
            if self._position >= self.num_windows:
                self.epoch, self._position = epoch + 1, 0
            yield self._batch(order[part], on_device[part])

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

    def _batch(self, host: Int64[Tensor, " batch"], windows: Int64[Tensor, " batch"]) -> Batch:
        observation = {key: rows.gather(windows) for key, rows in self._low.items()}
        for key, frames in self._images.items():
            observation[key] = frames.gather(host.numpy(), self._device)
        return Batch(
            observation=observation,
            action=self._action.gather(windows),
            mask=self._remaining[windows, None] > self._offsets,
            index=self._index[windows],
        )


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
        self._start = torch.from_numpy(starts).to(device)
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

    def gather(self, windows: Int64[Tensor, " batch"]) -> Shaped[Tensor, "batch length ..."]:
        rows = self._view.index_select(0, self._start[windows])
        return rows.view(len(windows), *self._shape)


class _ImageWindows:
    """Windows of frames that stay on disk."""

    def __init__(self, frames: Frames, spans: _Spans, horizon: int) -> None:
        self._frames, self._first, self._last = frames, spans.first_frame, spans.frame
        self._back = np.arange(1 - horizon, 1)

    def gather(self, windows: np.ndarray, device: torch.device) -> Shaped[Tensor, "batch horizon height width rgb"]:
        rows = np.maximum(self._last[windows, None] + self._back, self._first[windows, None])
        pinned = device.type == "cuda"
        out = torch.empty((*rows.shape, *self._frames.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        self._frames.gather(rows, out.numpy())
        return out.to(device, non_blocking=True)


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
