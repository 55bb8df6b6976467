"""Logs of the C++ runtime, their replay in another bundle, and the C++ tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robo_rlft.errors import DataError
from robo_rlft.export.native import LIBRARY, Mode, Runtime
from robo_rlft.export.native_log import read_log
from tests.export.native_bundles import Network, Robot, write_bundle
from tests.export.test_native import COMPILER, Loop

BUILD = Path(__file__).parents[2] / "build" / "runtime"
pytestmark = pytest.mark.skipif(
    COMPILER is None and not LIBRARY.is_file(), reason="the C++ runtime cannot be built: no C++ compiler"
)


@pytest.fixture
def logged(tmp_path: Path) -> tuple[Path, Loop]:
    runtime = Runtime(write_bundle(tmp_path / "bundle"))
    runtime.log(tmp_path / "log.bin")
    loop = Loop(runtime)
    loop.run(60)
    assert loop.runtime.log_status().error == ""
    runtime.close()
    return tmp_path / "log.bin", loop


def test_every_cycle_and_call_is_in_the_log(logged: tuple[Path, Loop]) -> None:
    path, loop = logged
    log = read_log(path)
    np.testing.assert_array_equal(log.control["target"], [c.target for c in loop.commands])
    np.testing.assert_array_equal(log.control["now_ns"], [c.now_ns for c in loop.commands])
    np.testing.assert_array_equal(log.control["mode"], [c.mode for c in loop.commands])
    assert log.control["mode"][-1] == Mode.RUN
    assert len(log.policy) == 60
    network = Network(Robot())
    again = network.act(log.policy["observation"].reshape(60, 2, 5), log.policy["noise"])
    np.testing.assert_allclose(log.policy["actions"], again, atol=2e-6)


def test_a_cut_log_loses_its_last_record_and_a_foreign_file_is_refused(logged: tuple[Path, Loop]) -> None:
    path, _ = logged
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert len(read_log(path).control) + len(read_log(path).policy) == 119
    path.write_bytes(b"x" * 200)
    with pytest.raises(DataError, match="no log"):
        read_log(path)
    path.write_bytes(data[:112] + b"\x09" + data[113:])
    with pytest.raises(DataError, match="unknown record"):
        read_log(path)


def replay(bundle: Path, log: Path) -> list[float]:
    """Largest difference of each action."""
    done = subprocess.run([BUILD / "tools" / "replay", bundle, log], capture_output=True, text=True, check=True)
    return [float(m) for m in re.findall(r"^joint_\d+ +(\S+)", done.stdout, re.MULTILINE)]


def test_replay_shows_the_difference_of_another_bundle(logged: tuple[Path, Loop], tmp_path: Path) -> None:
    path, _ = logged
    assert replay(tmp_path / "bundle", path) == [0.0, 0.0]
    network = Network(Robot())
    network.tensors["action.offset"] = np.float32(0.125) + network.tensors["action.offset"]
    other = write_bundle(tmp_path / "other", Robot(), network)
    np.testing.assert_allclose(replay(other, path), 0.125, atol=1e-5)


def test_the_tests_in_cpp_pass() -> None:
    ctest = shutil.which("ctest") or shutil.which("ctest", path=str(Path(sys.executable).parent))
    assert ctest is not None, "pip install 'robo-rlft[runtime]'"
    done = subprocess.run([ctest, "--test-dir", BUILD, "--output-on-failure"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
