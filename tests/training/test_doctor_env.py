"""`robo-rlft doctor env=ID` and what `list` says of environments."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import torch
import yaml
from rich.console import Console

from robo_rlft import cli, envs
from robo_rlft.envs import conformance, registry
from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.conformance import RULES, Finding
from robo_rlft.training import capabilities, catalogue
from robo_rlft.training.configure import compose
from robo_rlft.training.doctor_env import doctor_env


class _Careless:
    """Hopper, but it hands out the same reward tensor over and over, and says that it cannot fork."""

    def __init__(self, num_envs: int) -> None:
        self.env = envs.make("Hopper", num_envs)
        self.reward = torch.zeros(num_envs)
        self.cannot = {"forks_are_equal": "its states are too large"}

    def step(self, actions: torch.Tensor) -> tuple:
        obs, reward, *rest = self.env.step(actions)
        self.reward[:] = reward
        return obs, self.reward, *rest

    def __getattr__(self, name: str) -> object:
        return getattr(self.env, name)


@pytest.fixture
def careless() -> Iterator[None]:
    registry.register("Careless", lambda: lambda num_envs, **_: _Careless(num_envs), "overwrites its rewards")
    yield
    del registry._ENTRIES["Careless"]


def test_names_what_is_broken_and_what_is_stated(careless: None) -> None:
    page = io.StringIO()
    assert doctor_env(compose(["env.id=Careless"]), Console(file=page, width=200)) == 1
    lines = {line.split("  ")[0].strip(): line for line in page.getvalue().splitlines()}
    assert "fail" in lines["returned tensors stay"]
    assert "its states are too large" in lines["forks are equal"]
    assert "pass" in lines["chunk equals steps"]


def test_a_sound_environment_by_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "env=Walker2d"]) == 0
    assert "it keeps every rule" in capsys.readouterr().out
    assert cli.main(["doctor", "env=nowhere:Task"]) == 2


def test_environments_are_made_once_and_closed() -> None:
    made: list[BatchEnv] = []

    def factory(num_envs: int) -> BatchEnv:
        made.append(envs.make("Hopper", num_envs))
        return made[-1]

    findings = list(conformance.examine(factory))
    assert [f.rule for f in findings] == [rule.__name__ for rule in RULES]
    assert {f.status for f in findings} <= {"pass", "cannot"}
    assert len(made) < 12
    assert all(env.closed for env in made)


def test_records_of_capabilities_name_rules_that_exist() -> None:
    known = {rule.__name__ for rule in RULES}
    assert known >= set(capabilities.COLUMNS)
    for env_id, record in capabilities.recorded().items():
        assert set(record["rules"]) == known, f"robo_rlft/envs/capabilities.yaml is older than the rules: {env_id}"
        assert all(rule["status"] in ("pass", "cannot") for rule in record["rules"].values()), env_id


def test_records_come_back_from_yaml() -> None:
    record = capabilities.as_record([Finding("closes", "pass"), Finding("renders", "cannot", "no GL")], {"x": "1"})
    assert yaml.safe_load(yaml.safe_dump(record)) == record
    assert [capabilities.cell(rule) for rule in record["rules"].values()] == ["yes", "no"]


def test_lists_a_simulators_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    family = registry.Family("toys", "toys", lambda: lambda *_: None, lambda: ["One", "Two"], "One")  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(registry._FAMILIES, "toys", family)
    page = io.StringIO()
    catalogue.show("toys", console=Console(file=page, width=200))
    assert "toys:One" in page.getvalue()
    assert envs.find("toys:Two").id == "toys:Two"
    with pytest.raises(envs.registry.ConfigError, match="toys:One"):  # pyright: ignore[reportAttributeAccessIssue]
        envs.find("toys:")
