"""Demonstrations: store, window loader, statistics, validation, conversion."""

from robo_rlft.data.episode import Episode
from robo_rlft.data.normaliser import Stats, compute_stats
from robo_rlft.data.store import Dataset, DatasetWriter
from robo_rlft.data.windows import Batch, Windows

__all__ = ["Batch", "Dataset", "DatasetWriter", "Episode", "Stats", "Windows", "compute_stats"]
