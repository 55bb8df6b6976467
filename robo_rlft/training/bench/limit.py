"""The speed limit of the CPU engine: a C loop over `mj_step`, compiled on this machine when the bench runs."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Float

from robo_rlft.errors import UserError

_SOURCE = Path(__file__).with_name("limit.c")


def replay(
    model: mujoco.MjModel, states: Float[np.ndarray, "step env state"], frame_skip: int, threads: int
) -> tuple[float, Float[np.ndarray, "env state"]]:
    """Wall seconds that `mj_step` alone needs for the recorded control steps, and the states the last one leads to.

    Args:
        model: the model.
        states: integration states before each control step, controls included.
        frame_skip: substeps per control step.
        threads: threads the environments are split over.

    Raises:
        UserError: there is no C compiler, or it fails.
    """
    steps, envs, width = states.shape
    expected = mujoco.mj_stateSize(model, int(mujoco.mjtState.mjSTATE_INTEGRATION))
    if width != expected or states.dtype != np.float64 or not states.flags.c_contiguous:
        raise ValueError(
            f"states must be contiguous float64 [step, env, {expected}], got {states.dtype} {states.shape}"
        )
    after = np.empty((envs, width))
    arguments = (model._address, states.ctypes.data, after.ctypes.data, envs, steps, frame_skip, min(threads, envs))
    seconds = _library().replay(*arguments)
    if seconds < 0:
        raise UserError(f"the limit could not be measured with {threads} threads: use at most 64, and free some memory")
    return seconds, after


@cache
def _library() -> ctypes.CDLL:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise UserError("the bench compiles its limit in C and found no compiler: install gcc or clang")
    package = Path(mujoco.__file__).parent
    shared = next(iter(sorted(package.glob("libmujoco*.so*")) + sorted(package.glob("libmujoco*.dylib"))))
    target = Path(tempfile.mkdtemp(prefix="robo-rlft-")) / "limit.so"
    command = [compiler, "-O3", "-shared", "-fPIC", "-pthread", f"-I{package / 'include'}", str(_SOURCE)]
    command += [str(shared), f"-Wl,-rpath,{package}", "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"compiling the limit failed: {done.stderr.strip().splitlines()[-1]}")
    library = ctypes.CDLL(str(target))
    library.replay.restype = ctypes.c_double
    library.replay.argtypes = [*[ctypes.c_void_p] * 3, *[ctypes.c_int] * 4]
    return library
