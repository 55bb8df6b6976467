"""What is installed, and how: the wheel outside the checkout, and the set-up that `make` does by itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from robo_rlft import __version__
from robo_rlft.envs import families
from robo_rlft.training.configure import recipes

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

IGNORED = shutil.ignore_patterns("__pycache__", "*.so")

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def call(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    merged = {**os.environ, **environment}
    return subprocess.run([*map(str, command)], cwd=cwd, env=merged, capture_output=True, text=True, timeout=300)


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing left over from earlier builds can get in."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "robo_rlft", source / "robo_rlft", ignore=IGNORED)
    done = call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist", cwd=source)
    assert done.returncode == 0, done.stdout + done.stderr
    return next((source / "dist").glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "robo_rlft").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    built = {name for name in names if name.endswith(".so")}
    assert {name for name in names - built if ".dist-info/" not in name} == files
    assert {name.partition(".")[0] for name in built} == ({"robo_rlft/envs/mujoco/_stepper"} if compiler() else set())
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {Path(name).suffix for name in files} >= {".py", ".yaml", ".xml", ".html", ".c", ".typed"}


@pytest.mark.slow
def test_an_installation_without_a_compiler_goes_on(tmp_path: Path) -> None:
    """With a compiler that only fails."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "robo_rlft/envs/mujoco", tmp_path / "robo_rlft/envs/mujoco", ignore=IGNORED)
    done = call(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=tmp_path, CC="false")
    assert done.returncode == 0, done.stdout + done.stderr
    names = zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))).namelist()
    assert "robo_rlft/envs/mujoco/stepper.c" in names
    assert not [name for name in names if name.endswith(".so")]


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    done = call(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel)
    assert done.returncode == 0, done.stderr
    program = (
        "import robo_rlft; from robo_rlft.cli import main; from robo_rlft.training.configure import compose;"
        "print(robo_rlft.__file__); assert main(['list']) == 0;"
        "from robo_rlft.envs.mujoco import native; print(native.missing() or 'compiled');"
        "print(compose(['recipe=reinflow/arm_peg_insert']).env.id)"
    )
    done = call(sys.executable, "-P", "-c", program, cwd=tmp_path, PYTHONPATH=str(target))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert Path(lines[0]).is_relative_to(target)
    assert lines[-2:] == ["compiled" if compiler() else "not compiled", "ArmPegInsert"]
    assert all(name in done.stdout for name in recipes())
    assert (target / "bin" / "robo-rlft").exists()


def test_one_version() -> None:
    assert PROJECT["version"] == __version__


def test_every_dependency_has_an_upper_bound_or_no_effect_on_results() -> None:
    """A release of theirs must not break an installation of ours."""
    free = {"packaging", "setuptools", "robo-rlft"}
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    assert [
        line for line in lines if "<" not in line and re.split(r"[<>=\[]", line)[0] not in {*free, "robo-rlft"}
    ] == []


def test_the_extra_all_holds_every_simulator() -> None:
    """What is registered with an extra is installed by it, or by a target of its own."""
    words = " ".join(PROJECT["optional-dependencies"]["all"])
    named = set(re.findall(r"[\w-]+", words))
    wanted = {family.extra for family in families() if family.extra}
    assert wanted - named <= {"metaworld"}


@needs_make
def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # pyright: ignore[reportOptionalSubscript]
    assert set(re.findall(r"^make (\S+)", call("make", "help").stdout, re.MULTILINE)) == phony


@needs_make
def test_set_up_installs_torch_before_the_rest_and_marks_itself_done_last(tmp_path: Path) -> None:
    """Dry run with an environment that does not exist."""
    done = call("make", "--dry-run", "test", f"VENV={tmp_path}/venv")
    steps = ["make_venv.sh", "torch==2.13.0", "-e '.[dev,bench]'", "touch ", "-m pytest"]
    places = [done.stdout.index(step) for step in steps]
    assert places == sorted(places)


@needs_make
def test_set_up_runs_again_exactly_when_the_requirements_changed(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    sources = tmp_path / "pyproject.toml", tmp_path / "robo_rlft/envs/mujoco/stepper.c"
    sources[1].parent.mkdir(parents=True)
    for source in sources:
        source.write_text("as it was\n")
    (tmp_path / ".venv").mkdir()
    for source in sources:
        dry = call("make", "--dry-run", "setup", cwd=tmp_path).stdout
        stamp = re.search(r"touch (\S+)", dry)
        assert stamp is not None
        (tmp_path / stamp[1]).touch()
        assert "pip install" not in call("make", "--dry-run", "setup", cwd=tmp_path).stdout
        source.write_text("changed\n")
        assert "pip install" in call("make", "--dry-run", "setup", cwd=tmp_path).stdout


def test_a_working_environment_is_kept() -> None:
    if sys.prefix == sys.base_prefix:
        pytest.skip("these tests run outside a virtual environment")
    done = call("bash", "tools/make_venv.sh", sys.prefix)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_environment_of_another_python_is_not_overwritten(tmp_path: Path) -> None:
    """A stand-in for the environment's interpreter answers as the version this one is not."""
    if sys.prefix == sys.base_prefix:
        pytest.skip("these tests run outside a virtual environment")
    other = "3.12" if sys.version_info[:2] == (3, 11) else "3.11"
    fake = tmp_path / "other"
    fake.write_text(f'#!/usr/bin/env bash\n[[ "$2" == *print* ]] && echo {other}\nexit 0\n')
    fake.chmod(0o755)
    done = call("bash", "tools/make_venv.sh", sys.prefix, fake)
    assert done.returncode == 1
    assert f"not {other}" in done.stderr
    assert f"VENV=.venv{other}" in done.stderr


@pytest.mark.parametrize("named", ["python-that-is-nowhere", "false"])
def test_without_a_fitting_python_the_set_up_says_what_to_install(named: str, tmp_path: Path) -> None:
    done = call("bash", "tools/make_venv.sh", tmp_path / "venv", named)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {named} was not found or is another version")
    assert "apt install python3.12" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_without_venv_is_named(tmp_path: Path) -> None:
    """As Debian ships it: the interpreter without the module."""
    fake = tmp_path / "python3.11"
    fake.write_text(
        f'#!/usr/bin/env bash\n[[ "$2" == *ensurepip* ]] && exit 1\nexec "{sys.executable}" "$@"\n', encoding="utf-8"
    )
    fake.chmod(0o755)
    done = call("bash", "tools/make_venv.sh", tmp_path / "venv", fake)
    assert done.returncode == 1
    version = ".".join(map(str, sys.version_info[:2]))
    assert f"apt install python{version}-venv" in done.stderr


@pytest.mark.parametrize("status", [0, 2])
def test_the_public_check_runs_the_tests_and_ends_with_their_closing_line(status: int, tmp_path: Path) -> None:
    """With a `make` that only pretends: the script's own part is the line and the status."""
    (tmp_path / "make").write_text(
        f'#!/bin/sh\necho "target $*"\necho "3 passed, 1 skipped in 2.50s"\necho "make: done"\nexit {status}\n'
    )
    (tmp_path / "make").chmod(0o755)
    done = call("bash", ".ci/run", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == status
    assert done.stdout.splitlines()[0] == "target test"
    assert done.stdout.splitlines()[-1] == "3 passed, 1 skipped in 2.50s"
