from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from robo_rlft.errors import BundleError, SpecError
from robo_rlft.export.client import PolicyProcess
from robo_rlft.export.runtime import Controller

Draw = Callable[[int], tuple[dict[str, np.ndarray], np.ndarray]]


@pytest.fixture(scope="module")
def process(exported: Path) -> Iterator[PolicyProcess]:
    with PolicyProcess(exported) as running:
        yield running


def test_the_process_has_no_torch_and_passed_its_golden_check(process: PolicyProcess) -> None:
    assert process.modules == []
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "libtorch" not in maps
    assert "onnxruntime" in maps
    assert process.golden_error <= 1e-5


def test_it_acts_as_the_controller_does(process: PolicyProcess, exported: Path, inputs: Draw) -> None:
    controller = Controller(exported)
    for rows in (1, 7, 64):
        np.testing.assert_array_equal(process.act(*inputs(rows)), controller.act(*inputs(rows)))
        assert 0 < process.inference_s < 5


def test_a_refusal_reaches_the_parent_and_the_process_goes_on(process: PolicyProcess, inputs: Draw) -> None:
    observation, noise = inputs(2)
    with pytest.raises(SpecError, match="reads observations"):
        process.act({"other": observation["policy"]}, noise)
    with pytest.raises(SpecError, match="row 0: entry 'x' is nan"):
        process.act({"policy": np.full((2, 2, 3), np.nan)}, noise)
    with pytest.raises(SpecError, match="must hold numbers"):
        process.act({"policy": np.array([[["a"]]])}, noise)
    assert process.act(observation, noise).shape == (2, 4, 2)


def test_closing_ends_the_process(exported: Path, inputs: Draw) -> None:
    with PolicyProcess(exported) as process:
        pid = process.pid
        assert _alive(pid)
    assert not _alive(pid)
    with pytest.raises(BundleError, match="was closed"):
        process.act(*inputs(1))


def test_a_killed_process_is_reported_by_its_signal(exported: Path, inputs: Draw) -> None:
    with PolicyProcess(exported) as process:
        process.act(*inputs(1))
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(BundleError, match="policy process was ended by signal SIGKILL"):
            process.act(*inputs(1))
        with pytest.raises(BundleError, match="policy process was ended by signal SIGKILL"):
            process.act(*inputs(1))


def test_a_process_that_hangs_is_ended(exported: Path, inputs: Draw) -> None:
    with PolicyProcess(exported, timeout_s=0.3) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(BundleError, match=r"did not answer within 0\.3 s"):
            process.act(*inputs(1))
    assert not _alive(process.pid)


def test_ctrl_c_is_left_to_the_parent(exported: Path, inputs: Draw) -> None:
    with PolicyProcess(exported) as process:
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.05)
        assert process.act(*inputs(1)).shape == (1, 4, 2)


def test_a_damaged_bundle_is_refused_by_the_process(bundle: Path) -> None:
    data = bytearray((bundle / "policy.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "policy.onnx").write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"policy\.onnx was altered"):
        PolicyProcess(bundle)


def test_a_process_that_cannot_start_says_why(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robo_rlft.export.client.MODULE", "robo_rlft.export.missing")
    with pytest.raises(BundleError, match=r"ended with status 1 .*No module named robo_rlft\.export\.missing"):
        PolicyProcess(exported)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
