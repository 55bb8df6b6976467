"""What needs no MetaDrive: the figures of an episode, the table of tasks, what a user gets wrong."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from robo_rlft.envs import registry
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.metadrive import make_env, tasks
from robo_rlft.envs.metadrive.episode import METRICS, Ledger
from robo_rlft.envs.metadrive.observations import policy_spec
from robo_rlft.envs.metadrive.tasks import find
from robo_rlft.errors import ConfigError, MissingExtraError, UserError


def step(**events: float) -> dict[str, float]:
    return {"arrive_dest": 0, "crash": 0, "out_of_road": 0, "route_completion": 0.0, "cost": 0, **events}


def test_figures_remember_events_and_add_costs() -> None:
    ledger = Ledger(horizon=10)
    ledger.enter(1.0, False, False, step(crash=1, cost=1, route_completion=0.2))
    ledger.enter(1.0, False, False, step(cost=0, route_completion=0.5))
    last = ledger.enter(-5.0, True, False, step(out_of_road=1, cost=1, route_completion=0.4))
    assert last.metrics == {
        "arrive": 0.0,
        "crash": 1.0,
        "out_of_road": 1.0,
        "max_step": 0.0,
        "route_completion": 0.4,
        "cost": 2.0,
    }
    assert not last.success
    assert set(last.metrics) == set(METRICS)


def test_the_horizon_is_apart_from_an_end() -> None:
    ledger = Ledger(horizon=2)
    assert ledger.enter(0.0, False, False, step()).metrics["max_step"] == 0.0
    assert ledger.enter(0.0, False, False, step()).metrics["max_step"] == 1.0
    ledger.begin()
    ledger.enter(0.0, False, False, step())
    arrived = ledger.enter(0.0, True, False, step(arrive_dest=1))
    assert arrived.success
    assert arrived.metrics["max_step"] == 0.0


def test_names_cover_the_standard_observations() -> None:
    """MetaDrive documents 259 entries on generated roads; in scenarios 22 of its entries are the route."""
    none = {"num_lasers": 0}
    lidar = {"num_lasers": 240, "num_others": 0, "add_others_navi": False}
    spec = policy_spec({"side_detector": none, "lane_line_detector": none, "lidar": lidar}, replays=False)
    assert spec.shape == (259,)
    assert spec.names[9] == "checkpoint1_ahead"
    assert spec.names[19] == "lidar_000"
    few = {"num_lasers": 120, "num_others": 0, "add_others_navi": False}
    replay = policy_spec({"side_detector": {"num_lasers": 12}, "lane_line_detector": none, "lidar": few}, replays=True)
    assert replay.shape == (12 + 6 + 1 + 22 + 120,)


@pytest.mark.parametrize(
    ("task", "params", "says"),
    [
        ("Procedual", {}, "did you mean Procedural"),
        ("Procedural", {"trafic_density": 0.1}, "did you mean traffic_density"),
        ("Procedural", {"expert": "pop"}, "did you mean ppo"),
        ("Procedural", {"max_episode_steps": 0}, "at least one step"),
        ("Scenario", {}, "none come with MetaDrive"),
        ("Scenario", {"data_directory": "/nowhere"}, "holds no dataset_summary.pkl"),
        ("MultiAgentRoundabout", {"num_agents": 0}, "a world has cars"),
    ],
)
def test_what_is_wrong_is_said_before_any_process_starts(task: str, params: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_env(task, 2, **params)  # pyright: ignore[reportArgumentType]


def test_cameras_are_checked() -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        make_env("Procedural", 1, images=ImagesConfig(cameras=["topdwn"]))
    with pytest.raises(ConfigError, match="square"):
        make_env("Procedural", 1, images=ImagesConfig(cameras=["topdown"], size=[64, 96]))


def test_every_task_is_described() -> None:
    assert {"Procedural", "Safe", "Scenario", "MultiAgentRoundabout"} <= set(tasks())
    assert all(find(name).description and find(name).settled.__doc__ for name in tasks())


@pytest.mark.parametrize(("too_new", "error"), [((3, 10), ConfigError), ((99, 0), MissingExtraError)])
def test_a_python_without_a_release_is_named(
    monkeypatch: pytest.MonkeyPatch, too_new: tuple[int, int], error: type[UserError]
) -> None:
    monkeypatch.setattr(registry, "_found", lambda package: False)
    family = replace(registry._FAMILIES["metadrive"], too_new=too_new)
    monkeypatch.setitem(registry._FAMILIES, "metadrive", family)
    with pytest.raises(error, match=r"pip install 'robo-rlft\[metadrive\]'") as caught:
        registry.make("metadrive:Procedural")
    assert ("use Python 3.9" in str(caught.value)) == (error is ConfigError)


def test_the_extra_is_left_out_where_python_is_too_new() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    [line] = project["project"]["optional-dependencies"]["metadrive"]
    assert not Requirement(line).marker.evaluate({"python_version": "3.12"})  # pyright: ignore[reportOptionalMemberAccess]
    assert registry._FAMILIES["metadrive"].too_new == (3, 12)
