"""`robo-rlft doctor`: look at this machine, or at a data set, and say what to do about each problem."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.table import Table

from robo_rlft.errors import DataError
from robo_rlft.training import graphics
from robo_rlft.training.config import Config
from robo_rlft.training.paths import ROOT
from robo_rlft.training.requirements import Package, extras, packages
from robo_rlft.training.tables import default_console, literal, make_table

Status = Literal["ok", "note", "problem"]
COLOURS: dict[Status, str] = {"ok": "green", "note": "yellow", "problem": "red"}
LEAST_MEMORY_GB, LEAST_DISK_GB = 3.0, 5.0
"""Below these the demo is at risk: it holds about 2 GB in memory and leaves well under 1 GB on the disk."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: its name.
        status: `ok`; `note`: works with less than there could be; `problem`: something will fail.
        found: what there is.
        advice: what to do; empty when there is nothing to do.
    """

    what: str
    status: Status
    found: str
    advice: str = ""


def doctor(config: Config, console: Console | None = None) -> int:
    """Print what was found; returns the number of problems.

    With `data.path` set, the data set is checked instead of the machine.
    """
    console = console or default_console()
    if config.data.path:
        return _doctor_data(Path(config.data.path), console)
    findings = examine()
    console.print(_table(findings))
    problems = sum(f.status == "problem" for f in findings)
    console.print("this machine is ready" if not problems else f"{problems} to put right before the first run")
    return problems


def examine() -> list[Finding]:
    """Look at everything; a check that cannot run is itself a finding."""
    return [finding for check in CHECKS for finding in _guarded(check)]


def python() -> Iterator[Finding]:
    """Version and interpreter."""
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    advice = "" if fits else "use Python 3.11 or 3.12: make test PYTHON=python3.12"
    yield Finding("python", "ok" if fits else "problem", f"{platform.python_version()} at {sys.executable}", advice)


def system() -> Iterator[Finding]:
    """Operating system, processor, memory and disk."""
    yield Finding("system", "ok", f"{platform.platform()}, {_processor()}")
    free = psutil.virtual_memory().available / 2**30
    short = free < LEAST_MEMORY_GB
    advice = "close other programs, or lower env.num_envs and ppo.minibatch" if short else ""
    yield Finding("memory", "note" if short else "ok", f"{free:.1f} GB free", advice)
    yield _disk(Path.cwd())


def threads() -> Iterator[Finding]:
    """Cores this process may use, and whether torch and BLAS use as many."""
    import torch

    cores, quota = usable_cores(), cpu_quota()
    limit = min(cores, quota or cores)
    yield Finding("cores", "ok", f"{cores} usable of {os.cpu_count()}" + (f", quota {quota:g}" if quota else ""))
    advice = f"set OMP_NUM_THREADS={max(1, int(limit))}: more threads than cores wait for each other"
    crowded = torch.get_num_threads() > limit
    found = f"torch {torch.get_num_threads()}, {_thread_variables()}"
    yield Finding("threads", "note" if crowded else "ok", found, advice if crowded else "")


def torch_build() -> Iterator[Finding]:
    """Torch's version, its CPU features and BLAS."""
    import torch

    blas = "MKL" if torch.backends.mkl.is_available() else "no MKL"
    onednn = "oneDNN" if torch.backends.mkldnn.is_available() else "no oneDNN"
    features = torch.backends.cpu.get_cpu_capability()
    yield Finding("torch", "ok", f"{torch.__version__}, {features}, {blas}, {onednn}")
    yield Finding("numpy BLAS", "ok", _numpy_blas())


def stepper() -> Iterator[Finding]:
    """What steps the MuJoCo environments."""
    from robo_rlft.envs.mujoco import native

    if reason := native.missing():
        advice = "for faster steps: install gcc or clang, then pip install again, or make clean setup"
        yield Finding("MuJoCo stepper", "note", f"mujoco.batch; the compiled one is missing: {reason}", advice)
    else:
        yield Finding("MuJoCo stepper", "ok", "compiled")


def gpu() -> Iterator[Finding]:
    """GPUs that torch can use, or why it cannot."""
    import torch

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(i)
            yield Finding("GPU", "ok", f"{device.name}, {device.total_memory / 2**30:.0f} GB: use device=cuda:{i}")
    elif shutil.which("nvidia-smi"):
        advice = "install a torch with CUDA that fits the driver (nvidia-smi shows its version)"
        yield Finding("GPU", "note", f"there is a driver, but torch {torch.__version__} cannot use it", advice)
    else:
        yield Finding("GPU", "ok", "none; everything runs on the CPU")


def opengl() -> Iterator[Finding]:
    """Off-screen rendering, tried in a process of its own: videos and images need one way that works."""
    errors = {name: graphics.try_offscreen(name) for name in graphics.BACKENDS}
    if any(not error for error in errors.values()):
        working = [name for name, error in errors.items() if not error]
        yield Finding("OpenGL", "ok", f"renders with {' and '.join(working)}")
        return
    for name, error in errors.items():
        advice = f"for videos and images; Debian, Ubuntu: apt install {graphics.BACKENDS[name]}"
        yield Finding(f"OpenGL {name}", "note", error, advice)


def vulkan() -> Iterator[Finding]:
    """Devices of Vulkan, which some simulators render with."""
    found = graphics.vulkan_devices()
    advice = (
        "" if found.devices else "only for simulators that render with it: apt install libvulkan1 mesa-vulkan-drivers"
    )
    yield Finding("Vulkan", "ok" if found.devices else "note", found.text, advice)


def requirements() -> Iterator[Finding]:
    """Needed packages and extras, in versions that fit."""
    needed = [p for p in packages() if not p.extra]
    wrong = [p for p in needed if not p.fits]
    if not needed:
        yield Finding(
            "packages", "problem", "robo-rlft itself is not installed", "pip install robo-rlft, or make setup"
        )
    elif not wrong:
        yield Finding("packages", "ok", ", ".join(f"{p.name} {p.found}" for p in needed))
    for package in wrong:
        yield Finding(package.name, "problem", _found(package), f"pip install '{package.name}{package.wanted}'")
    for name, members in extras().items():
        yield _extra(name, members)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python,
    system,
    threads,
    torch_build,
    stepper,
    gpu,
    opengl,
    vulkan,
    requirements,
)
"""In the order they are printed."""


def usable_cores() -> int:
    """Cores the system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(folder: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time a container may use (cgroup v2), or None without a limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _guarded(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A broken installation shows itself in many ways; each must end as a line of the table."""
    try:
        return list(check())
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return [Finding(check.__name__.replace("_", " "), "problem", reason, "reinstall: make clean setup")]


def _doctor_data(path: Path, console: Console) -> int:
    from robo_rlft.data.validate import validate

    if not path.exists():
        raise DataError(f"no data set at {path}: give the folder that robo-rlft collect or convert wrote")
    report = validate(path)
    console.print(str(report), markup=False, soft_wrap=True)
    return sum(finding.severity == "error" for finding in report.findings)


def _table(findings: list[Finding]) -> Table:
    table = make_table("", "", "found", "what to do")
    for finding in findings:
        status = literal(finding.status, COLOURS[finding.status])
        table.add_row(finding.what, status, literal(finding.found), literal(finding.advice))
    return table


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    if not os.access(folder, os.W_OK):
        return Finding(
            "disk", "problem", f"{folder} cannot be written", f"start in a folder of yours: runs go to {ROOT}/"
        )
    short = free < LEAST_DISK_GB
    return Finding("disk", "note" if short else "ok", f"{free:.1f} GB free in {folder}", "free some" if short else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _thread_variables() -> str:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    values = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    return ", ".join(values) or "no limit in the environment"


def _numpy_blas() -> str:
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # pyright: ignore[reportOptionalSubscript]
    return f"{blas['name']} {blas['version']}"


def _found(package: Package) -> str:
    return f"{package.found or 'not installed'}, expected {package.wanted}"


def _extra(name: str, members: tuple[Package, ...]) -> Finding:
    missing = [p.name for p in members if not p.fits]
    if not missing:
        return Finding(f"extra {name}", "ok", ", ".join(f"{p.name} {p.found}" for p in members))
    return Finding(
        f"extra {name}", "note", f"without {', '.join(missing)}", f"if you want it: pip install 'robo-rlft[{name}]'"
    )
