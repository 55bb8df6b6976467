"""How fast training batches come from a data set, beside numpy on a memory map and in RAM (`robo-rlft bench data`).

All three give the same tensors for the same windows in the same order: observations, actions and the padding mask. The
peers get their window indices for nothing, computed beforehand, and hold each array in one flat file or in memory.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robo_rlft.data import Dataset, DatasetWriter, Episode, Windows
from robo_rlft.spec import ArraySpec, RobotSpec
from robo_rlft.training.bench.rows import BenchRow, print_table, write_json

SEED = 0
LOW, IMAGE = "policy", "image/front"


@dataclass(frozen=True)
class Case:
    """One data set and the windows taken from it.

    Attributes:
        name: of the row.
        key: the observation key that is loaded.
        spec: its shape and dtype.
        episodes, steps: size of the data set.
        chunk: actions per window.
        horizon: observations per window.
    """

    name: str
    key: str
    spec: ArraySpec
    episodes: int
    steps: int
    chunk: int = 16
    horizon: int = 2

    @property
    def robot(self) -> RobotSpec:
        """The spec of the recordings."""
        return RobotSpec("Bench", {self.key: self.spec}, ArraySpec((7,)), 20.0, self.steps)


CASES = (
    Case("data/low-dim", LOW, ArraySpec((30,)), episodes=200, steps=500),
    Case("data/image-128", IMAGE, ArraySpec((128, 128, 3), "uint8"), episodes=20, steps=200),
)
Batches = Iterator[tuple[Tensor, Tensor, Tensor]]


def run(
    json_path: str | Path | None = None,
    *,
    cases: Sequence[Case] = CASES,
    batch_size: int = 64,
    rounds: int = 300,
    seconds: float = 0.01,
    folder: str | Path | None = None,
) -> list[BenchRow]:
    """Measure every case, print the table and write it as JSON if a path is given.

    Args:
        json_path: where to write the rows.
        cases: what to measure.
        batch_size: windows per batch.
        rounds: the loaders take turns this often; the median of their turns counts, and of the
            ratios within each round, since other programs on the machine disturb all loaders alike.
        seconds: length of one turn.
        folder: where the data sets are written and removed again; the system's temporary folder by default.
    """
    rows = []
    for case in cases:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            rows.append(_measure(case, Path(scratch), batch_size, rounds, seconds))
    print_table(rows, "windows per second")
    if json_path is not None:
        write_json(rows, json_path)
    return rows


def record(case: Case, path: Path) -> Dataset:
    """A data set of noise: nothing in it compresses."""
    rng = np.random.default_rng(SEED)
    with DatasetWriter(path, case.robot, {"made_by": "bench"}) as writer:
        for _ in range(case.episodes):
            shape = (case.steps + 1, *case.spec.shape)
            is_image = case.spec.dtype == "uint8"
            rows = rng.integers(0, 256, shape, np.uint8) if is_image else rng.random(shape, np.float32)
            action = rng.random((case.steps, *case.robot.action.shape), np.float32)
            writer.append(Episode({case.key: rows}, action, np.zeros(case.steps, np.float32), False, True, True))
    return Dataset.open(path)


def loaders(case: Case, dataset: Dataset, scratch: Path, batch_size: int) -> dict[str, Callable[[], Batches]]:
    """Ours and the peers, each as a function that starts an endless stream of (observation, action, mask)."""
    in_memory = (dataset.observation(case.key), dataset.action)
    return {
        "ours": lambda: _ours(case, dataset, batch_size),
        "memmap": lambda: _indexed(case, dataset, _mapped(in_memory, scratch), batch_size),
        "ram": lambda: _indexed(case, dataset, in_memory, batch_size),
    }


def _measure(case: Case, scratch: Path, batch_size: int, rounds: int, seconds: float) -> BenchRow:
    dataset = record(case, scratch / "set")
    streams = {name: start() for name, start in loaders(case, dataset, scratch, batch_size).items()}
    turns: dict[str, list[float]] = {name: [] for name in streams}
    for name in _order(list(streams), rounds):
        turns[name].append(_rate(streams[name], seconds) * batch_size)
    typical = {name: float(np.median(rates)) for name, rates in turns.items()}
    peers = {name: float(np.median(np.divide(turns["ours"], turns[name]))) for name in ("memmap", "ram")}
    return BenchRow(
        name=case.name,
        num_envs=batch_size,
        value=typical["ours"],
        unit="windows/s",
        limit_ratio=peers["ram"],
        peer_ratios=peers,
        detail={f"{name}_windows_per_second": rate for name, rate in typical.items()},
    )


def _order(names: list[str], rounds: int) -> Iterator[str]:
    """Turns in random order: each loader finds the caches as another one left them."""
    generator = np.random.default_rng(SEED)
    for _ in range(rounds):
        yield from generator.permutation(names).tolist()


def _rate(stream: Batches, seconds: float) -> float:
    """Batches per second."""
    start = time.perf_counter()
    for count in itertools.count(1):
        next(stream)
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return count / elapsed
    raise AssertionError("an endless count ended")


def _ours(case: Case, dataset: Dataset, batch_size: int) -> Batches:
    for batch in Windows(dataset, case.horizon, case.chunk, batch_size, SEED).stream():
        yield batch.observation[case.key], batch.action, batch.mask


def _indexed(case: Case, dataset: Dataset, arrays: tuple[np.ndarray, np.ndarray], batch_size: int) -> Batches:
    observations, actions = arrays
    frame_rows, action_rows, mask = _indices(case, dataset)
    generator = np.random.default_rng(SEED)
    while True:
        order = generator.permutation(dataset.num_steps)
        for first in range(0, len(order), batch_size):
            part = order[first : first + batch_size]
            frames, chunk = observations[frame_rows[part]], actions[action_rows[part]]
            yield torch.from_numpy(frames), torch.from_numpy(chunk), torch.from_numpy(mask[part])


def _indices(case: Case, dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the observations [S, horizon] and actions [S, chunk] of each window, and its mask [S, chunk]."""
    step = np.arange(dataset.num_steps)
    number = np.searchsorted(dataset.episode_ends, step, side="right")
    start, end = dataset.episode_starts[number, None], dataset.episode_ends[number, None]
    frame = np.maximum(step[:, None] + np.arange(1 - case.horizon, 1), start) + number[:, None]
    ahead = step[:, None] + np.arange(case.chunk)
    return frame, np.minimum(ahead, end - 1), ahead < end


def _mapped(arrays: tuple[np.ndarray, np.ndarray], scratch: Path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays as maps of flat files, without the slower indexing of numpy's memmap class."""
    mapped = []
    for number, values in enumerate(arrays):
        np.save(scratch / f"{number}.npy", values)
        mapped.append(np.asarray(np.load(scratch / f"{number}.npy", mmap_mode="r")))
    return mapped[0], mapped[1]
