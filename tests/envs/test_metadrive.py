"""MetaDrive in processes of its own: episodes decided by seeds, exact forks, experts, scenarios, cars as rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

if find_spec("metadrive") is None:  # not imported here: its OpenGL would keep EGL from the tests after it
    pytest.skip("extra metadrive", allow_module_level=True)

from robo_rlft.envs import conformance, experts, make
from robo_rlft.envs.base import BatchEnv, ChunkResult
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.metadrive.scenarios import export_scenarios
from robo_rlft.envs.metadrive.tasks import SCENARIOS
from robo_rlft.errors import DataError

SHORT = {"map": 1, "max_episode_steps": 40}


@pytest.fixture(scope="module")
def two() -> Iterator[BatchEnv]:
    """Two cars on short roads."""
    env = make("metadrive:Procedural", 2, seed=0, **SHORT, traffic_density=0.2)
    yield env
    env.close()


def drive(env: BatchEnv, chunks: int, seed: int = 0) -> list[ChunkResult]:
    """Forward, with a little steering; every chunk has four steps."""
    rng = np.random.default_rng(seed)
    scale, centre = np.array([0.1, 0.3]), np.array([0.0, 0.6])
    actions = centre + scale * rng.uniform(-1, 1, (chunks, env.num_envs, 4, 2))
    return [env.step_chunk(torch.from_numpy(a).float(), "all") for a in actions]


def seen(results: list[ChunkResult], rows: slice = slice(None)) -> list[Tensor]:
    return [v[rows] for r in results for v in (r.obs["policy"], r.final_obs["policy"], r.reward, r.length, r.done)]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(
    ("task", "params", "cannot"),
    [
        ("Procedural", {**SHORT, "traffic_density": 0.2}, {"state_comes_back"}),
        (
            "MultiAgentIntersection",
            {"num_agents": 3, "max_episode_steps": 40},
            {"same_seed_same_episode", "resets_only_those_asked", "state_comes_back", "forks_are_equal"},
        ),
    ],
)
def test_keeps_the_rules(task: str, params: dict[str, Any], cannot: set[str]) -> None:
    findings = list(conformance.examine(partial(make, f"metadrive:{task}", **params)))
    assert [f for f in findings if f.status == "fail"] == []
    assert {f.rule for f in findings if f.status == "cannot"} == cannot


def test_a_seed_decides_the_episode_whatever_came_before(two: BatchEnv) -> None:
    two.reset(seed=40)
    first = seen(drive(two, 12))
    two.reset(seed=7)
    drive(two, 20)
    two.reset(seed=40)
    assert equal(first, seen(drive(two, 12)))


def test_traffic_follows_the_scenario_or_the_seed() -> None:
    """Seeds a multiple of the number of scenarios apart drive the same road."""
    params = {"map": 1, "traffic_density": 0.6, "start_seed": 3}

    def driven(env: BatchEnv, seed: int) -> list[Tensor]:
        env.reset(seed=seed)
        return seen(drive(env, 15))

    fixed = make("metadrive:Procedural", 1, **params)
    first, repeated, other = (driven(fixed, s) for s in (1, 1 + SCENARIOS, 2))
    fixed.close()
    assert equal(first, repeated)
    assert not equal(first, other)
    varied = make("metadrive:Procedural", 1, **params, random_traffic=True)
    first, other, repeated = (driven(varied, s) for s in (1, 1 + SCENARIOS, 1))
    varied.close()
    assert equal(first, repeated)
    assert not equal(first, other)


def test_figures_say_how_an_episode_ended(two: BatchEnv) -> None:
    """Straight ahead into whatever comes: metrics agree with the flags at the end of each episode."""
    two.reset(seed=0)
    actions = torch.tensor([0.3, 1.0]).expand(2, 4, 2)
    ended = 0
    for _ in range(30):
        result = two.step_chunk(actions)
        figures = result.metrics
        for i in result.done.nonzero().flatten().tolist():
            ended += 1
            reasons = [float(figures[name][i]) for name in ("arrive", "crash", "out_of_road")]
            assert bool(result.terminated[i]) == any(reasons)
            assert float(figures["max_step"][i]) == float(result.truncated[i])
            assert float(figures["cost"][i]) >= max(reasons[1:])
            assert bool(result.success[i]) == bool(figures["arrive"][i])
    assert ended >= 4


def test_forks_are_exact_through_resets_and_again() -> None:
    env = make("metadrive:Procedural", 3, seed=5, map=1, max_episode_steps=30, traffic_density=0.3)
    env.reset(seed=5)
    drive(env, 3)
    pids = _pids(env)
    for leader, followers in ((0, [1, 2]), (2, [0])):  # the second leader is itself a copy
        obs = env.fork(leader, [leader, *followers])
        pids |= _pids(env)
        assert all(torch.equal(obs["policy"][leader], obs["policy"][i]) for i in followers)
        plan = torch.from_numpy(np.random.default_rng(leader).uniform(-0.1, 0.6, (12, 1, 4, 2))).float()
        done = 0
        for actions in plan:
            result = env.step_chunk(actions.expand(3, 4, 2))
            done += int(result.done[leader])
            for values in (result.obs["policy"], result.reward, result.length):
                assert all(torch.equal(values[leader], values[i]) for i in followers)
        assert done, "the horizon passed, so an episode ended and another began"
    apart = env.step_chunk(torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.3, 0.5]])[:, None].expand(3, 4, 2))
    assert not torch.equal(apart.obs["policy"][0], apart.obs["policy"][2])
    env.close()
    assert len(pids) == 6
    assert not [pid for pid in pids if _runs(pid)]


def _pids(env: BatchEnv) -> set[int]:
    return {host._process.pid for host in env.hosts}  # pyright: ignore[reportAttributeAccessIssue]


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_dead_copy_is_replaced() -> None:
    env = make("metadrive:Procedural", 2, seed=5, **SHORT)
    env.reset(seed=5)
    env.fork(0, [1])
    psutil.Process(env.hosts[1]._process.pid).kill()  # pyright: ignore[reportAttributeAccessIssue]
    result = drive(env, 1)[0]
    assert result.truncated.tolist() == [False, True]
    assert drive(env, 1)[0].length.tolist() == [4, 4]
    env.close()


def test_the_expert_arrives() -> None:
    """On an empty straight road both do, by their own actions alone."""
    for name in ("ppo", "idm"):
        env = make("metadrive:Procedural", 1, map="S", traffic_density=0.0, expert=name, max_episode_steps=400)
        obs, _ = env.reset(seed=1)
        expert = experts.make(env)
        for _ in range(400):
            obs, _, terminated, truncated, info = env.step(expert.act(obs))
            if bool((terminated | truncated).any()):
                break
        assert bool(info["success"])
        assert float(info["metrics"]["route_completion"]) > 0.9
        env.close()


def test_scenarios_are_exported_and_replayed(tmp_path: Path) -> None:
    folder = tmp_path / "scenarios"
    done = export_scenarios(folder, 2, expert="idm", map="S", traffic_density=0.3)
    assert done.written == 2
    with pytest.raises(DataError, match="already"):
        export_scenarios(folder, 1)
    env = make("metadrive:Scenario", 1, data_directory=str(folder), max_episode_steps=400)
    first, second, third = (env.reset(seed=s)[0]["policy"] for s in (0, 1, 2))
    assert torch.equal(first, third), "two scenarios: seed 2 is seed 0 again"
    assert not torch.equal(first, second)
    expert, obs = experts.make(env), {"policy": third}
    for _ in range(400):
        obs, _, terminated, truncated, info = env.step(expert.act(obs))
        if bool((terminated | truncated).any()):
            break
    assert bool(info["success"])
    assert env.render(size=(48, 64)).std() > 0
    env.close()


def test_cars_of_a_world_are_rows() -> None:
    """Two worlds, of which the second lends two of its three places to the expert."""
    env = make("metadrive:MultiAgentRoundabout", 4, seed=0, num_agents=3, max_episode_steps=15)
    env.reset(seed=0)
    assert len(env._pool.hosts) == 2  # pyright: ignore[reportAttributeAccessIssue]
    idle = torch.zeros(4, 10, 2)
    first = env.step_chunk(idle, "all")
    assert first.length.tolist() == [10] * 4
    second = env.step_chunk(idle, "all")
    assert second.truncated.all()
    assert second.length.tolist() == [5] * 4
    assert second.trace is not None
    assert torch.equal(second.trace["policy"][:, 5], second.final_obs["policy"])
    assert torch.equal(second.trace["policy"][:, 10], second.final_obs["policy"])
    assert (second.reward[:, 5:] == 0).all()
    assert (second.metrics["max_step"] == 1).all()
    fresh = second.obs["policy"]
    assert (fresh.abs().sum(1) > 0).all(), "spawn points are free: no row waits"
    assert not (fresh == second.final_obs["policy"]).all(1).any()
    env.close()


def test_a_row_without_a_free_place_waits() -> None:
    """Cars that stand on the spawn points leave none for those that come after them."""
    env = make("metadrive:MultiAgentIntersection", 16, seed=0, num_agents=16, max_episode_steps=5)
    env.reset(seed=0)
    waiting = torch.zeros(16, dtype=torch.bool)
    for _ in range(4):
        result = env.step_chunk(torch.zeros(16, 5, 2))
        assert (result.reward[waiting] == 0).all()
        assert not result.done[waiting].any()
        waiting = result.obs["policy"].abs().sum(1) == 0
    assert waiting.any()
    assert not waiting.all()
    env.close()


def test_top_down_images_remember_every_step() -> None:
    """The same after one chunk of four steps and after four chunks of one."""
    images = ImagesConfig(cameras=["topdown", "topdown_motion"], size=[84, 84])
    env = make("metadrive:Procedural", 1, images=images, map=2, traffic_density=0.5)
    actions = torch.tensor([0.0, 0.8]).expand(1, 12, 2)
    env.reset(seed=3)
    once = env.step_chunk(actions).obs
    env.reset(seed=3)
    for h in range(12):
        stepwise, *_ = env.step(actions[:, h])
    for key in ("image/topdown", "image/topdown_motion"):
        assert once[key].shape == (1, 84, 84, 3)
        assert once[key].dtype == torch.uint8
        assert torch.equal(once[key], stepwise[key])
    road, way, _ = once["image/topdown"][0].float().unbind(-1)
    assert road.mean() > 5
    assert 0 < (way > 0).sum() < 50
    env.close()


OFFLINE = """
import socket, urllib.request
def refuse(*a, **k): raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = urllib.request.urlopen = refuse
from robo_rlft.envs.metadrive.drive import Drive
from robo_rlft.envs.metadrive.tasks import find
for cameras in ((), ("topdown",)):
    car = Drive("Procedural", find("Procedural").settled({"map": 1}), cameras, (84, 84))
    car.reset(0, 0)
    car.step(car.expert_action())
    car.observe()
    assert car.render("ego", (48, 64)).std() > 0
    car.close()
"""


def test_nothing_is_downloaded_and_nothing_is_printed() -> None:
    done = subprocess.run([sys.executable, "-c", OFFLINE], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
