"""What decides a result besides the settings: packages, machine, source."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("robo-rlft", "torch", "mujoco", "numpy", "gymnasium", "zarr", "onnxruntime")


def environment() -> dict[str, Any]:
    """Versions of packages, the machine, and the git state of the working directory (None outside a checkout)."""
    return {"versions": package_versions(), "machine": _machine(), "git": _git_state()}


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": model or platform.processor(), "cores": os.cpu_count(), "system": platform.platform()}


def _git_state() -> dict[str, Any] | None:
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--short")
    if commit is None or status is None:
        return None
    return {"commit": commit, "changed_files": len(status.splitlines())}


def _git(*arguments: str) -> str | None:
    # Without optional locks: looking must never disturb a commit that somebody is making.
    command = ["git", "--no-optional-locks", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
