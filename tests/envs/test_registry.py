"""Environments by name: ours, a user's own file from the documentation, and what goes wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs import conformance, registry
from robo_rlft.errors import ConfigError, MissingExtraError

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "environments.md"


def test_lists_all_tasks_with_a_line_each() -> None:
    found = {entry.id: entry for entry in envs.entries()}
    assert {"Hopper", "Walker2d", "HalfCheetah", "Ant", "Humanoid", "ArmPickPlace", "ArmPegInsert"} <= found.keys()
    assert all(entry.description and "\n" not in entry.description for entry in found.values())
    assert found["Hopper"].installed


@pytest.mark.parametrize(("name", "near"), [("hopper", "Hopper"), ("Walker", "Walker2d"), ("ArmPeg", "ArmPegInsert")])
def test_a_misspelt_name_is_answered_with_the_right_one(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean .*{near}"):
        envs.make(name)


def test_importing_the_package_imports_no_simulator() -> None:
    code = "import sys; from robo_rlft import envs; envs.entries(); sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    envs.register("Elsewhere", "nowhere:TASK", "needs a package", extra="elsewhere", package="no_such_package")
    assert not next(e for e in envs.entries() if e.id == "Elsewhere").installed
    with pytest.raises(MissingExtraError, match=r"pip install 'robo-rlft\[elsewhere\]'"):
        envs.make("Elsewhere")


def test_an_entry_point_of_the_wrong_kind_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    envs.register("Odd", lambda: 3, "loads a number")
    with pytest.raises(ConfigError, match="Odd loads a int: its entry point must name a MujocoTask"):
        envs.make("Odd")


def test_a_callable_gets_the_arguments_of_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    envs.register("Mine", lambda: lambda num_envs, **kwargs: envs.make("Hopper", num_envs, **kwargs), "a wrapper")
    env = envs.make("Mine", 3, seed=1, dtype=torch.float64, reset_noise_scale=0.0)
    assert env.num_envs == 3
    assert env.reset()[0]["policy"].dtype == torch.float64
    assert env.robot.task["reset_noise_scale"] == 0.0


def test_the_documented_task_works_from_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```(python|toml)\n# (my_project/\S+)\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    sources = {path: text for _, path, text in blocks}
    task = sources["my_project/balance.py"]
    assert len(task.splitlines()) <= 60
    (tmp_path / "my_project").mkdir()
    (tmp_path / "my_project" / "balance.py").write_text(task)
    info = tmp_path / "my_project-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-project\nVersion: 1.0\n")
    name, target = re.findall(r'^(\w+) = "(.+)"$', sources["my_project/pyproject.toml"], re.MULTILINE)[0]
    (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINT_GROUP}]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert any(e.id == "Balance" and "my-project" in e.description for e in envs.entries())
    conformance.check(lambda num_envs: envs.make("Balance", num_envs))
    env = envs.make("Balance", 4, seed=0, tilt=0.0, threads=1)
    _, reward, terminated, *_ = env.step(torch.zeros(4, 1))
    torch.testing.assert_close(reward, torch.ones(4))
    assert not terminated.any()
