"""The doctor's checks on machines that this one is not, by replacing what they ask."""

from __future__ import annotations

import ctypes.util
import io
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from robo_rlft.envs.mujoco import native
from robo_rlft.errors import DataError
from robo_rlft.training import doctor, graphics
from robo_rlft.training.config import Config
from robo_rlft.training.doctor import Finding
from robo_rlft.training.requirements import Package

Version = namedtuple("Version", "major minor micro")


def only(check: Callable[[], Iterator[Finding]], what: str) -> Finding:
    return next(finding for finding in check() if finding.what == what)


def told(config: Config) -> tuple[int, str]:
    page = io.StringIO()
    return doctor.doctor(config, Console(file=page, width=200)), page.getvalue()


def test_this_machine_runs_its_own_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine lacks, its tests run: so there is no problem, and nothing without a status."""
    monkeypatch.setattr(graphics, "try_offscreen", lambda name: "no library")
    problems, page = told(Config())
    assert problems == 0
    assert "this machine is ready" in page
    expected = ("python", "torch", "threads", "MuJoCo stepper", "disk", "packages", "Vulkan")
    assert all(f"\n {what}" in page for what in expected)


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10), "problem"), ((3, 11), "ok"), ((3, 12), "ok"), ((3, 13), "problem")]
)
def test_python(version: tuple[int, int], status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 0))
    found = only(doctor.python, "python")
    assert found.status == status
    assert bool(found.advice) == (status == "problem")


@pytest.mark.parametrize(("reason", "status"), [("", "ok"), ("not compiled", "note")])
def test_stepper(reason: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "missing", lambda: reason)
    found = only(doctor.stepper, "MuJoCo stepper")
    assert found.status == status
    assert reason in found.found
    assert ("gcc" in found.advice) == bool(reason)


def test_more_threads_than_the_container_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(doctor, "usable_cores", lambda: 16)
    monkeypatch.setattr(doctor, "cpu_quota", lambda: 2.0)
    found = only(doctor.threads, "threads")
    assert found.status == "note"
    assert "OMP_NUM_THREADS=2" in found.advice
    monkeypatch.setattr(doctor, "cpu_quota", lambda: None)
    assert only(doctor.threads, "threads").status == "ok"


@pytest.mark.parametrize(("text", "quota"), [("150000 100000", 1.5), ("max 100000", None), ("", None), (None, None)])
def test_quota_of_a_container(text: str | None, quota: float | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert doctor.cpu_quota(tmp_path) == quota


def test_a_driver_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    assert "CUDA" in only(doctor.gpu, "GPU").advice
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert only(doctor.gpu, "GPU").status == "ok"


def test_one_way_to_render_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphics, "try_offscreen", lambda name: "" if name == "osmesa" else "no library")
    assert [(f.status, f.found) for f in doctor.opengl()] == [("ok", "renders with osmesa")]


def test_no_way_to_render_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphics, "try_offscreen", lambda name: "no library")
    advice = [f.advice for f in doctor.opengl()]
    assert "libegl1" in advice[0]
    assert "libosmesa6" in advice[1]


def test_packages_that_are_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = (Package("numpy", "<3,>=1.26", "1.25.0"), Package("zarr", "<4,>=3.1", ""), Package("rich", ">=13", "13.9"))
    extra = {"wandb": (Package("wandb", ">=0.19", "", "wandb"),)}
    monkeypatch.setattr(doctor, "packages", lambda: wrong)
    monkeypatch.setattr(doctor, "extras", lambda: extra)
    numpy, zarr, wandb = doctor.requirements()
    assert (numpy.status, numpy.found) == ("problem", "1.25.0, expected <3,>=1.26")
    assert zarr.found.startswith("not installed")
    assert "pip install 'zarr<4,>=3.1'" in zarr.advice
    assert (wandb.status, wandb.advice) == ("note", "if you want it: pip install 'robo-rlft[wandb]'")


def test_a_check_that_breaks_is_a_problem_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def torch_build() -> Iterator[Finding]:
        raise ImportError("libtorch.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "CHECKS", (torch_build, doctor.python))
    problems, page = told(Config())
    assert problems == 1
    assert "libtorch.so" in page
    assert "make clean setup" in page
    assert "\n python" in page


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert only(doctor.system, "disk").status == "problem"


def test_little_disk_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 2**30))
    found = only(doctor.system, "disk")
    assert (found.status, found.found[:6]) == ("note", "1.0 GB")


def test_no_vulkan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    assert graphics.vulkan_devices() == graphics.Vulkan(0, "no loader (libvulkan)")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "libnowhere.so.1")
    assert graphics.vulkan_devices().devices == 0


def test_rendering_is_tried_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the driver is an answer; so is silence."""
    crashed = subprocess.CompletedProcess([], -11, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *words, **more: crashed)
    assert graphics.try_offscreen("egl") == "ended with status -11"

    def silent(*words: object, **more: object) -> None:
        raise subprocess.TimeoutExpired("python", 60)

    monkeypatch.setattr(subprocess, "run", silent)
    assert "60 s" in graphics.try_offscreen("egl")


def test_an_unknown_renderer_is_refused_by_mujoco() -> None:
    assert "MUJOCO_GL" in graphics.try_offscreen("nonsense")


def test_a_data_set_that_is_not_there(tmp_path: Path) -> None:
    config = Config()
    config.data.path = str(tmp_path / "nowhere.zarr")
    with pytest.raises(DataError, match=r"nowhere\.zarr"):
        doctor.doctor(config)


def test_a_folder_that_is_no_data_set(tmp_path: Path) -> None:
    config = Config()
    config.data.path = str(tmp_path)
    problems, page = told(config)
    assert problems >= 1
    assert str(tmp_path) in page
