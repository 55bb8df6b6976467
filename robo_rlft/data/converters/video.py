"""Frames out of mp4 files that hold one episode after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from jaxtyping import UInt8

from robo_rlft.errors import DataError


class FrameReader:
    """Reads runs of frames; consecutive runs of one file cost a single pass of decoding.

    Args:
        rate_hz: frames per second of the recording; a frame belongs to the step nearest to its time stamp.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate = rate_hz
        self._file: Path | None = None
        self._container: Any = None
        self._frames: Iterator[tuple[int, Any]] = iter(())
        self._ahead: tuple[int, Any] | None = None

    def read(self, file: Path, start_s: float, count: int) -> UInt8[np.ndarray, "count height width 3"]:
        """The `count` frames from `start_s` seconds on.

        Raises:
            DataError: the file cannot be decoded or has no frame for one of the steps.
        """
        first = round(start_s * self._rate)
        try:
            if file != self._file or self._ahead is None or self._ahead[0] > first:
                self._open(file)
            return np.stack([self._frame(file, first + i) for i in range(count)])
        except (FFmpegError, OSError) as error:
            raise DataError(f"{file} cannot be decoded ({error})") from error

    def close(self) -> None:
        """Close the file that is open, if one is."""
        if self._container is not None:
            self._container.close()
        self._file = self._container = self._ahead = None

    def _open(self, file: Path) -> None:
        self.close()
        self._container = av.open(str(file))
        self._file = file
        self._frames = self._decoded(self._container)
        self._ahead = next(self._frames, None)

    def _decoded(self, container: Any) -> Iterator[tuple[int, Any]]:
        for frame in container.decode(video=0):
            yield round(frame.time * self._rate), frame

    def _frame(self, file: Path, number: int) -> np.ndarray:
        while self._ahead is not None and self._ahead[0] < number:
            self._ahead = next(self._frames, None)
        if self._ahead is None or self._ahead[0] != number:
            raise DataError(f"{file}: expected a frame at {number / self._rate:.3f} s, found none within half a step")
        return self._ahead[1].to_ndarray(format="rgb24")
