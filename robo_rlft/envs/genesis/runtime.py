"""Genesis in this process: started once, quietly, with the device and the precision that its first scene asks for."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType

import torch

from robo_rlft.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """What Genesis can have only once per process.

    Attributes:
        device: `cpu` or `cuda`; its index is the one torch has chosen.
        precision: "32" or "64" bits.
        threads: that step environments on the CPU.
    """

    device: str
    precision: str
    threads: int

    def __str__(self) -> str:
        threads = f" with {self.threads} threads" if self.device == "cpu" else ""
        return f"{self.precision}-bit numbers on {self.device}{threads}"


def settings_for(device: torch.device, dtype: torch.dtype, threads: int) -> Settings:
    """What an environment of these arguments needs.

    Raises:
        ConfigError: a device that Genesis does not share its memory with, or a type of numbers it does not have.
    """
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"Genesis runs on cpu or cuda here, not on '{device}': set device=cpu or device=cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("Genesis was asked for cuda, but torch sees no GPU: set device=cpu")
    if dtype not in (torch.float32, torch.float64):
        raise ConfigError(f"Genesis computes in float32 or float64, not in {dtype}")
    # One thread unless more are asked for: sharing the environments out pays only for large batches (docs/genesis.md).
    return Settings(device.type, "64" if dtype == torch.float64 else "32", max(threads, 1))


def start(wanted: Settings) -> ModuleType:
    """Genesis, started.

    Raises:
        ConfigError: it already runs in this process with other settings.
    """
    global _running
    gs = _imported()
    if not gs._initialized:
        _initialise(gs, wanted)
        _running = wanted
    elif _running is None:
        raise ConfigError(
            "Genesis was started by other code in this process: call gs.destroy() before, or leave gs.init() to us"
        )
    elif _running != wanted:
        raise ConfigError(
            f"Genesis runs in this process with {_running} and cannot also run with {wanted}: "
            "use one device, dtype and number of threads for all its environments, or another process"
        )
    return gs


def running() -> Settings | None:
    """The settings Genesis was started with by `start`."""
    return _running


_running: Settings | None = None


def _imported() -> ModuleType:
    """The module; it replaces Python's handler of uncaught exceptions, which we put back."""
    hook = sys.excepthook
    if find_spec("setuptools"):  # imported after Genesis it raises, and torch.compile imports it
        importlib.import_module("setuptools")
    try:
        return importlib.import_module("genesis")
    finally:
        sys.excepthook = hook


def _initialise(gs: ModuleType, wanted: Settings) -> None:
    if wanted.device == "cpu" and wanted.threads > 1:
        os.environ["QD_NUM_THREADS"] = str(wanted.threads)
        os.environ["GS_PARA_LEVEL"] = str(int(gs.PARA_LEVEL.ALL))
    backend = gs.cpu if wanted.device == "cpu" else gs.cuda
    gs.init(backend=backend, precision=wanted.precision, logging_level="error")
    if not gs.use_zerocopy:
        gs.destroy()
        raise ConfigError(f"Genesis does not share its memory with torch on {wanted.device} here (GS_ENABLE_ZEROCOPY)")
