"""The bench of Genesis: the bare loop makes the same physics, and the ratio is that of the two."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs.genesis.engine import GenesisEnv
from robo_rlft.training.bench import genesis_peer

pytestmark = pytest.mark.skipif(importlib.util.find_spec("genesis") is None, reason="extra genesis")


def test_the_bare_loop_replays_our_physics() -> None:
    env = envs.make("genesis:PandaReach", 3, seed=0)
    assert isinstance(env, GenesisEnv)
    env.reset(seed=0)
    start = env.get_state()
    chunks = [0.1 * torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(k)).clamp(-1, 1) for k in range(2)]
    targets, executed = genesis_peer._record(env, chunks)
    after = env.world.fields["robot.qpos"].copy()
    assert (len(targets), executed) == (8, 24)
    env.set_state(start)
    genesis_peer.raw_loop(env, targets)
    np.testing.assert_array_equal(env.world.fields["robot.qpos"], after)
    env.close()


def test_a_row_has_the_share_of_the_bare_loop() -> None:
    (row,) = genesis_peer.measure("genesis:PandaReach", 3, 0.05, 0)
    assert row.limit_ratio is not None
    assert 0.05 < row.limit_ratio < 2.0
    assert row.value == pytest.approx(row.limit_ratio * row.detail["raw"])
