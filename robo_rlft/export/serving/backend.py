"""What computes a served policy: a controller bundle through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robo_rlft.errors import UserError
from robo_rlft.export.manifest import BASE_ACTION, DELAY, MANIFEST_FILE, OBSERVATION_PREFIX, PHASE, Manifest
from robo_rlft.export.runtime import Controller
from robo_rlft.export.serving.contract import NOISE, POLICY, Request


class Backend(Protocol):
    """A policy that can be served.

    Attributes:
        manifest: what it says about itself.
        description: its `controller.yaml`, which clients check themselves.
        golden_error: largest difference from its golden actions on this machine.
        text: names of its text inputs.
    """

    manifest: Manifest
    description: bytes
    golden_error: float
    text: tuple[str, ...]

    def infer(self, stage: str, arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> np.ndarray:
        """Actions for model inputs by name, rows first.

        Raises:
            SpecError: an input was refused.
            BundleError: the policy gave a value that is not finite.
        """
        ...


class BundleBackend:
    """A verified bundle.

    Args:
        bundle: the bundle's folder.
        threads: threads of one inference.

    Raises:
        BundleError: the bundle is incomplete, altered, or does not reproduce its golden actions.
    """

    text: tuple[str, ...] = ()

    def __init__(self, bundle: Path | str, threads: int = 1) -> None:
        self.controller = Controller(bundle, threads)
        self.manifest, self.golden_error = self.controller.manifest, self.controller.golden_error
        self.description = (Path(bundle) / MANIFEST_FILE).read_bytes()

    def infer(self, stage: str, arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> np.ndarray:
        """See `Backend.infer`."""
        prefixed = {k: v for k, v in arrays.items() if k.startswith(OBSERVATION_PREFIX)}
        observation = {k.removeprefix(OBSERVATION_PREFIX): v for k, v in prefixed.items()}
        if stage != POLICY:
            return self.controller.correct(observation, arrays[BASE_ACTION], arrays[PHASE])
        others: dict[str, Any] = {k: v for k, v in arrays.items() if k not in prefixed and k != NOISE}
        if DELAY in others:  # one for all rows: requests with another delay are another kind
            others[DELAY] = int(others[DELAY][0, 0])
        return self.controller.act(observation, arrays[NOISE], **others)


def compute(backend: Backend, requests: Sequence[Request]) -> list[np.ndarray | UserError]:
    """One inference for requests of one kind: to each its own rows, or what is wrong with it.

    A refusal makes each be computed alone, so that one client's bad value reaches no other.
    """
    try:
        actions = _infer(backend, requests)
    except UserError as error:
        return [error] if len(requests) == 1 else [compute(backend, [r])[0] for r in requests]
    ends = np.cumsum([r.rows for r in requests])[:-1]
    return [rows[0] if r.single else rows for r, rows in zip(requests, np.split(actions, ends), strict=True)]


def _infer(backend: Backend, requests: Sequence[Request]) -> np.ndarray:
    first = requests[0]
    if len(requests) == 1:
        return backend.infer(first.stage, first.arrays, first.text)
    arrays = {name: np.concatenate([r.arrays[name] for r in requests]) for name in first.arrays}
    return backend.infer(first.stage, arrays, first.text)
