"""What a controller bundle looks like to its user, wherever it is computed."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from robo_rlft.export.manifest import Manifest


class ActingPolicy(Protocol):
    """A bundle in another process or on another machine. A context manager.

    Attributes:
        manifest: what the bundle says about itself.
        golden_error: what the other side found when it compared its golden actions.
        modules: packages of the training stack that are loaded there, where that must not be.
        inference_s: seconds the last answer took there.
        reached: how it is asked, as a few words.
    """

    manifest: Manifest
    golden_error: float
    modules: list[str]
    inference_s: float
    reached: str

    def act(
        self, observation: Mapping[str, np.ndarray], noise: np.ndarray, guidance: float | None = None
    ) -> np.ndarray:
        """As `Controller.act`."""
        ...

    def correct(self, observation: Mapping[str, np.ndarray], base_action: np.ndarray, phase: np.ndarray) -> np.ndarray:
        """As `Controller.correct`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
