"""From a folder on the command line to what computes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robo_rlft.errors import ConfigError
from robo_rlft.export.manifest import MANIFEST_FILE
from robo_rlft.export.serving.backend import Backend, BundleBackend


def open_policy(path: Path, flags: Mapping[str, str]) -> Backend:
    """A bundle, or a run's bundle, which is exported where it is missing.

    Args:
        path: folder of a bundle or a run.
        flags: of the verb `serve`: `--threads`, `--device`.

    Raises:
        ConfigError: the flags contradict each other or the folder.
        BundleError, CheckpointError: the folder cannot be served.
    """
    threads, device = _threads(flags.get("--threads", "1")), flags.get("--device", "cpu")
    if (path / MANIFEST_FILE).is_file() or not path.exists():
        if device != "cpu":
            raise ConfigError(
                f"--device {device} is for a run, {path} is a bundle, which ONNX Runtime computes on the CPU"
            )
        return BundleBackend(path, threads)
    from robo_rlft.export.serving.torch_backend import TorchBackend, exported

    config, bundle = exported(path)
    return BundleBackend(bundle, threads) if device == "cpu" else TorchBackend(config, bundle, device)


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--threads must be a number from 1, got '{text}'")
    return int(text)
