"""Single environments as a batch: the rules of `BatchEnv`, in this process in workers, and when one fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from toy_simulator import Toy

from robo_rlft.envs import conformance, experts
from robo_rlft.envs.pool import hosts
from robo_rlft.envs.pool.env import PoolEnv
from robo_rlft.envs.pool.hosts import ProcessHost
from robo_rlft.errors import ConfigError, SpecError, UserError


def pool(num_envs: int, workers: int | None, toy: partial[Toy] | type[Toy] = Toy, **kwargs: object) -> PoolEnv:
    return PoolEnv(toy, num_envs, env_id="Toy", workers=workers, **kwargs)  # pyright: ignore[reportArgumentType]


@pytest.fixture(params=[0, 2], ids=["local", "workers"])
def workers(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.mark.parametrize("rule", conformance.RULES, ids=lambda rule: rule.__name__)
def test_follows(rule: conformance.Rule, workers: int) -> None:
    conformance.follow(rule, lambda num_envs: pool(num_envs, workers))


def test_workers_change_nothing() -> None:
    """The same seeds and actions give the same numbers however the environments are spread."""
    envs = [pool(5, workers) for workers in (0, 1, 3)]
    actions = torch.rand(5, 7, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = []
    for env in envs:
        env.reset(seed=4)
        results = [env.step_chunk(actions, "all") for _ in range(4)]
        seen.append([(r.reward, r.length, r.final_obs["policy"], r.metrics["distance"], r.success) for r in results])
        env.close()
    for other in seen[1:]:
        for mine, theirs in zip(seen[0], other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_truncated_apart_from_terminated(workers: int) -> None:
    env = pool(2, workers)
    env.reset(seed=0)
    still = env.step_chunk(torch.zeros(2, 20, 1))
    assert still.truncated.all()
    assert not still.terminated.any()
    assert still.length.tolist() == [12, 12]
    assert (still.reward[:, 12:] == 0).all()
    away = env.step_chunk(torch.tensor([1.0, -1.0])[:, None, None].expand(2, 12, 1))
    assert away.terminated.all()
    assert not away.truncated.any()
    assert away.success.tolist() == [True, False]
    env.close()


def test_metrics_are_final_where_an_episode_ended(workers: int) -> None:
    env = pool(1, workers)
    env.reset(seed=0)
    result = env.step_chunk(torch.full((1, 12, 1), -1.0), "all")
    assert result.trace is not None
    line = result.trace["policy"][0, : int(result.length) + 1, 0]
    assert float(result.metrics["distance"]) == pytest.approx(float(line.diff().abs().sum()), abs=1e-6)
    env.close()


def test_growing_chunks_and_later_traces(workers: int) -> None:
    env = pool(3, workers)
    env.reset(seed=1)
    assert env.step_chunk(torch.zeros(3, 2, 1)).trace is None
    result = env.step_chunk(torch.zeros(3, 5, 1), "all")
    assert result.trace is not None
    assert result.trace["policy"].shape == (3, 6, 3)
    assert torch.equal(result.trace["policy"][:, 5], result.final_obs["policy"])
    assert env.step_chunk(torch.zeros(3, 1, 1), "all").trace["policy"].shape == (3, 2, 3)  # pyright: ignore[reportOptionalSubscript]
    env.close()


def test_variants_begin_with_the_next_episode(workers: int) -> None:
    env = pool(3, workers)
    env.reset(seed=0)
    env.set_variants([1, 0, 1])
    assert env.variant.tolist() == [0, 0, 0]
    assert env.instructions == ["go left"] * 3
    env.reset(options={"ids": [0, 1]})
    assert env.variant.tolist() == [1, 0, 0]
    assert env.instructions == ["go right", "go left", "go left"]
    with pytest.raises(SpecError, match="from 0 to 1"):
        env.set_variants([2], [0])
    env.close()


def test_the_simulators_expert(workers: int) -> None:
    env = pool(2, workers)
    env.set_variants([0, 1])
    obs, _ = env.reset(seed=0)
    assert experts.make(env).act(obs).tolist() == [[-1.0], [1.0]]
    env.close()


def test_renders_the_rows_asked_for(workers: int) -> None:
    env = pool(3, workers)
    obs, _ = env.reset(seed=0)
    images = env.render([2, 0], size=(4, 6))
    assert images.shape == (2, 4, 6, 3)
    assert images[:, 0, 0, 0].tolist() == [int(100 * abs(float(obs["policy"][i, 0]))) for i in (2, 0)]
    env.close()


def test_nan_of_the_simulator_cuts_the_episode_off(workers: int) -> None:
    env = pool(2, workers, partial(Toy, bad="nan"))
    env.reset(seed=0)
    result = env.step_chunk(torch.zeros(2, 3, 1))
    assert result.truncated.all()
    assert result.reward.isfinite().all()
    assert env.nan_resets == 2
    env.close()


def test_a_dead_worker_is_replaced_once(caplog: pytest.LogCaptureFixture) -> None:
    env = pool(4, 2)
    obs, _ = env.reset(seed=0)
    victim = env.hosts[1]
    assert isinstance(victim, ProcessHost)
    os.kill(victim._process.pid or 0, signal.SIGKILL)
    result = env.step_chunk(torch.zeros(4, 3, 1), "all")
    assert "worker 1 (environments 2..3" in caplog.text
    assert "SIGKILL" in caplog.text
    assert result.truncated.tolist() == [False, False, True, True]
    assert torch.equal(result.final_obs["policy"][2:], obs["policy"][2:])
    assert result.reward[2:].eq(0).all()
    after = env.step_chunk(torch.zeros(4, 3, 1), "all")
    assert torch.equal(after.trace["policy"][:, 0], result.obs["policy"])  # pyright: ignore[reportOptionalSubscript]
    os.kill(victim._process.pid or 0, signal.SIGKILL)
    with pytest.raises(UserError, match="restarted before"):
        env.step_chunk(torch.zeros(4, 3, 1))
    env.close()


def test_a_hung_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    env = pool(2, 2, partial(Toy, bad="hang"))
    env.reset(seed=0)
    monkeypatch.setattr(hosts, "TIMEOUT_S", 0.5)
    with pytest.raises(UserError, match=r"worker 0 .* gave no answer"):
        env.step_chunk(torch.zeros(2, 1, 1))
    env.close()


def test_errors_of_the_simulator_arrive(workers: int) -> None:
    with pytest.raises(ConfigError, match="run make toys"):
        pool(2, workers, partial(Toy, bad="user"))
    env = pool(2, workers, partial(Toy, bad="bug"))
    env.reset(seed=0)
    with pytest.raises((ZeroDivisionError, RuntimeError), match="toy divided by zero"):
        env.step_chunk(torch.zeros(2, 1, 1))
    env.reset(seed=0)
    env.close()


def test_closing_leaves_nothing() -> None:
    pool(2, 2).close()  # the server and the tracker of multiprocessing stay
    before = {p.pid for p in psutil.Process().children(recursive=True)}, _segments()
    env = pool(4, 2)
    env.reset(seed=0)
    env.close()
    env.close()
    assert ({p.pid for p in psutil.Process().children(recursive=True)}, _segments()) == before


def test_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    """And a script without a __main__ guard starts no workers of workers."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import time
            from toy_simulator import Toy
            from robo_rlft.envs.pool.env import PoolEnv
            env = PoolEnv(Toy, 2, env_id="Toy", workers=2)
            env.reset(seed=0)
            print("up", *[host._process.pid for host in env.hosts], flush=True)
            time.sleep(60)
        """)
    )
    before = _segments()
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        word, *pids = process.stdout.readline().split()
        assert word == "up"
        process.kill()
    _wait(lambda: not any(psutil.pid_exists(int(pid)) for pid in pids) and _segments() <= before)


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        pool(0, 0)
    with pytest.raises(ConfigError, match="a process for each of 3"):
        pool(3, 2, one_per_process=True)
    env = pool(2, 0)
    with pytest.raises(SpecError, match="distinct integers"):
        env.reset(options={"ids": [5]})
    env.reset(seed=0)
    with pytest.raises(SpecError, match="rows each"):
        env.set_state({k: v[:1] for k, v in env.get_state().items()})
    env.close()


def test_one_environment_per_process() -> None:
    env = pool(3, None, one_per_process=True)
    assert len(env.hosts) == 3
    env.close()


def test_actions_are_clipped_and_kept(workers: int) -> None:
    env, other = pool(1, workers), pool(1, workers)
    env.reset(seed=0)
    other.reset(seed=0)
    actions = torch.tensor([[[7.0]]])
    first, second = env.step_chunk(actions), other.step_chunk(actions.clamp(-1, 1))
    assert torch.equal(first.final_obs["policy"], second.final_obs["policy"])
    assert actions.item() == 7.0
    env.close()
    other.close()


def _segments() -> set[str]:
    folder = Path("/dev/shm")
    return {path.name for path in folder.glob("psm_*")} if folder.exists() else set()


def _wait(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def test_generator_states_are_whole() -> None:
    """Automatic resets after a restored state draw the same seeds."""
    env = pool(2, 0)
    env.reset(seed=9)
    env.step_chunk(torch.zeros(2, 12, 1))
    saved = env.get_state()
    first = env.step_chunk(torch.zeros(2, 12, 1)).obs["policy"]
    env.set_state(saved)
    assert np.array_equal(first.numpy(), env.step_chunk(torch.zeros(2, 12, 1)).obs["policy"].numpy())
    env.close()
